"""What every backend is told when it opens a program, and what it says about its devices."""

from dataclasses import dataclass
from pathlib import Path

from sdk_runtimes.errors import ArgumentError, SessionError, UnknownChoiceError
from sdk_runtimes.specs import ProgramSpec


@dataclass(frozen=True)
class OpenOptions:
    """How a program is opened.

    Attributes:
        threads: of one run; None leaves the number to the engine (the physical cores).
        memory_limit_bytes: what the caller allows; checked before a backend sees it, passed for engines
            that take a limit of their own.
        lean: trade speed for memory: no prepacked copies of the weights, no arena.
        spin: threads wait for the next operator in a busy loop. On two cores with other work on them ONNX
            Runtime took 2x the CPU time and 2x to 3x the wall time with it (convolutions and MatMuls, 2
            threads); a machine that does nothing else may gain from it.
        cache_path: folder of this program's compiled blobs; None compiles anew each time.
    """

    threads: int | None = None
    memory_limit_bytes: int | None = None
    lean: bool = False
    spin: bool = False
    cache_path: Path | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ArgumentError(
                f"threads is {self.threads}",
                why="a run needs at least one thread",
                fix="threads=1, or threads=None for the engine's choice",
            )


@dataclass(frozen=True)
class Device:
    """Where a session can run, or why it cannot.

    Attributes:
        id: "onnxruntime:cpu"; the `device` argument of `load`.
        backend: "onnxruntime".
        kind: "cpu", "gpu", "npu" or "auto".
        name: what the hardware calls itself; empty if unknown.
        usable: whether a session can be opened here and now.
        note: why it is not usable and what to do, or what to know about it.
    """

    id: str
    backend: str
    kind: str
    name: str
    usable: bool
    note: str = ""


def check_outputs(spec: ProgramSpec, given: int) -> None:
    """Refuses a file with more or fewer outputs than its spec: they go by position.

    Raises:
        SessionError: names both numbers.
    """
    if given != len(spec.outputs):
        raise SessionError(
            f"{spec.entry!r} has {given} outputs, the manifest names {len(spec.outputs)}",
            why=f"they are {', '.join(item.name for item in spec.outputs)}",
            fix="export the model again",
        )


def split_device(device_id: str, backend: str) -> tuple[str, int]:
    """Unit and index of a device id: "onnxruntime:cuda:1" -> ("cuda", 1).

    Raises:
        UnknownChoiceError: not a device id of `backend`.
    """
    prefix, _, rest = device_id.partition(":")
    unit, _, index = rest.partition(":")
    if prefix != backend or not unit or (index and not index.isdecimal()):
        raise UnknownChoiceError("device", device_id, (f"{backend}:<unit>", f"{backend}:<unit>:<index>"))
    return unit, int(index or 0)
