"""Measured speeds, which decide what `device="auto"` is."""

from collections.abc import Mapping

from sdk_runtimes import compiled_cache
from sdk_runtimes.bundle import Bundle
from sdk_runtimes.cpu import cpu_name, nvidia_driver
from sdk_runtimes.identity import sdk_version
from sdk_runtimes.specs import ProgramSpec


def record_speed(
    bundle: Bundle, device: str, target: str, latency_ms: float, *, name: str | None = None
) -> None:
    """Remembers how fast a program is on a device of this machine; the latest measurement counts.

    Args:
        bundle: what was measured.
        device: a device id.
        target: of the program.
        latency_ms: median of its runs.
        name: of the program, where the bundle has several networks.

    Raises:
        UnknownChoiceError, ArgumentError: no such program, or several.
    """
    spec = bundle.program(target, name)
    key = compiled_cache.key_of(_about(bundle))
    known = measured_speeds(bundle)
    rows = {f"{program}@{where}": speed for (program, where), speed in known.items()}
    rows[f"{spec.id}@{_plain(device)}"] = latency_ms
    compiled_cache.write(compiled_cache.SPEEDS, key, {**_about(bundle), "latency_ms": rows})


def measured_speeds(bundle: Bundle) -> Mapping[tuple[str, str], float]:
    """(program id, device id) -> latency in ms, of what was measured on this machine."""
    content = compiled_cache.read(compiled_cache.SPEEDS, compiled_cache.key_of(_about(bundle))) or {}
    rows = content.get("latency_ms")
    if not isinstance(rows, dict):
        return {}
    return {
        (key.rpartition("@")[0], key.rpartition("@")[2]): float(value)
        for key, value in rows.items()
        if isinstance(value, int | float)
    }


def by_speed(bundle: Bundle, choices: list[tuple[str, ProgramSpec]]) -> list[tuple[str, ProgramSpec]]:
    """Choices (device id, program) with the measured ones first, the fastest of them ahead."""
    speeds = measured_speeds(bundle)
    return sorted(choices, key=lambda choice: speeds.get((choice[1].id, _plain(choice[0])), float("inf")))


def _plain(device: str) -> str:
    """The first of several is what the bare unit means: "onnxruntime:cuda:0" is "onnxruntime:cuda"."""
    return device.removesuffix(":0")


def _about(bundle: Bundle) -> dict[str, str]:
    return {
        "bundle": bundle.digest,
        "name": bundle.manifest.name,
        "cpu": cpu_name(),
        "gpu_driver": nvidia_driver(),
        "sdk": sdk_version(),
    }
