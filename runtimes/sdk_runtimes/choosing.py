"""Which program of a bundle runs on which device."""

from collections.abc import Mapping
from types import MappingProxyType

from sdk_runtimes.backends import BACKENDS
from sdk_runtimes.bundle import Bundle
from sdk_runtimes.errors import ArgumentError, DeviceError, UnknownChoiceError
from sdk_runtimes.specs import ProgramSpec
from sdk_runtimes.speeds import by_speed

Choice = tuple[str, ProgramSpec]
"""A device id, and a program that its backend opens."""

AUTO = "auto"
KINDS = ("cpu", "gpu", "npu")

# Where nothing was measured: accelerators with an engine of their own first, then the CPU; a program's own
# engine before another that opens it too. NPUs only when asked for: they compute in fp16 or less, whatever
# the program's precision.
ORDER: tuple[tuple[str, str], ...] = (
    ("tensorrt:gpu", "tensorrt"),
    ("onnxruntime:cuda", "onnx"),
    ("onnxruntime:cuda", "tensorrt"),
    ("coreml:all", "coreml"),
    ("coreml:gpu", "coreml"),
    ("openvino:gpu", "openvino"),
    ("onnxruntime:directml", "onnx"),
    ("openvino:cpu", "openvino"),
    ("onnxruntime:cpu", "onnx"),
    ("openvino:cpu", "onnx"),
    ("onnxruntime:cpu", "tensorrt"),
    ("coreml:cpu", "coreml"),
    ("coreml:npu", "coreml"),
    ("openvino:npu", "openvino"),
    ("onnxruntime:qnn", "onnx"),
)


def choices(bundle: Bundle, device: str, *, target: str | None, name: str | None) -> list[Choice]:
    """What to try, the best first.

    Args:
        bundle: its programs.
        device: a device id, a kind ("cpu", "gpu", "npu"), or "auto".
        target: only programs in this form.
        name: only programs of this network; needed where the bundle has several.

    Raises:
        UnknownChoiceError: no such device, target or name.
        ArgumentError: several networks and no name.
        DeviceError: no program of the bundle runs on that device.
    """
    programs = _programs(bundle, target, name)
    found = _explicit(device, programs) if ":" in device else _by_kind(device, programs)
    if not found:
        raise DeviceError(
            f"no program of {bundle.manifest.name!r} runs on {device!r}",
            why=f"it holds {', '.join(spec.target for spec in programs)}",
            fix=f"export with a target that {device!r} opens, or load(..., device='auto')",
        )
    return by_speed(bundle, found) if ":" not in device else found


def known_devices() -> Mapping[str, str]:
    """Every device id -> its kind, whether it is usable here or not."""
    return MappingProxyType(
        {f"{row.name}:{unit}": kind for row in BACKENDS.values() for unit, kind in row.units.items()}
    )


def _programs(bundle: Bundle, target: str | None, name: str | None) -> tuple[ProgramSpec, ...]:
    if target is not None and target not in bundle.targets:
        raise UnknownChoiceError("target", target, bundle.targets)
    if name is not None and name not in bundle.names:
        raise UnknownChoiceError("program", name, bundle.names)
    found = tuple(
        p for p in bundle.manifest.programs if target in (None, p.target) and name in (None, p.name)
    )
    names = tuple(dict.fromkeys(spec.name for spec in found))
    if len(names) > 1:
        raise ArgumentError(
            f"{bundle.manifest.name!r} holds the networks {', '.join(names)}",
            why="a session runs one of them",
            fix=f"load(..., name={names[0]!r})",
        )
    return found


def _explicit(device: str, programs: tuple[ProgramSpec, ...]) -> list[Choice]:
    name, unit, *rest = device.split(":")
    if f"{name}:{unit}" not in known_devices() or len(rest) > 1 or not all(map(str.isdecimal, rest)):
        _refuse(device)
    return [(device, spec) for target in BACKENDS[name].targets for spec in programs if spec.target == target]


def _by_kind(device: str, programs: tuple[ProgramSpec, ...]) -> list[Choice]:
    if device != AUTO and device not in KINDS:
        _refuse(device)
    kinds = known_devices()
    return [
        (where, spec)
        for where, target in ORDER
        for spec in programs
        if spec.target == target and where in kinds and _wanted(kinds[where], device)
    ]


def _wanted(kind: str, asked: str) -> bool:
    return kind == asked or (asked == AUTO and kind != "npu")


def _refuse(device: str) -> None:
    raise UnknownChoiceError(
        "device",
        device,
        (AUTO, *KINDS, *known_devices()),
        fix="sdk.devices() says which of them are usable here",
    )
