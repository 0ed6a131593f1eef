"""Which engine opens which program: one row a backend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from sdk_runtimes.errors import UnknownChoiceError
from sdk_runtimes.opening import Device, OpenOptions
from sdk_runtimes.session import RawSession
from sdk_runtimes.sessions import coreml, onnxruntime, openvino, tensorrt
from sdk_runtimes.specs import ProgramSpec

__all__ = ["BACKENDS", "Backend", "Device", "OpenOptions", "open_raw"]


@dataclass(frozen=True)
class Backend:
    """One engine.

    Attributes:
        name: the first half of its device ids.
        targets: the formats it opens, the preferred one first.
        units: second half of its device ids -> kind ("cpu", "gpu", "npu", "auto").
        devices: lists where it can run, and where it could but for something missing.
        open: opens a program on one of them.
        identity: device id -> what a verdict or a compiled blob depends on (versions, driver, hardware).
    """

    name: str
    targets: tuple[str, ...]
    units: Mapping[str, str]
    devices: Callable[[], tuple[Device, ...]]
    open: Callable[[ProgramSpec, Path, str, OpenOptions], RawSession]
    identity: Callable[[str], Mapping[str, str]]


class _SessionModule(Protocol):
    """What a file of `sessions/` offers. Read-only members, as a module's names are to us."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 - constants of a module
    @property
    def TARGETS(self) -> tuple[str, ...]: ...  # noqa: N802 - likewise
    @property
    def UNITS(self) -> Mapping[str, str]: ...  # noqa: N802 - likewise
    def devices(self) -> tuple[Device, ...]: ...
    def open_session(
        self, spec: ProgramSpec, folder: Path, device: str, options: OpenOptions, /
    ) -> RawSession: ...
    def identity(self, device: str, /) -> Mapping[str, str]: ...


def _row(module: _SessionModule) -> Backend:
    return Backend(
        name=module.NAME,
        targets=module.TARGETS,
        units=module.UNITS,
        devices=module.devices,
        open=module.open_session,
        identity=module.identity,
    )


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {row.name: row for row in map(_row, (tensorrt, openvino, onnxruntime, coreml))}
)


def open_raw(spec: ProgramSpec, folder: Path, device: str, options: OpenOptions | None = None) -> RawSession:
    """Opens a program's files on a device, unchecked: `load` is the door for users.

    Args:
        spec: the program; `spec.files` are relative to `folder`.
        folder: the bundle's folder, or a staging folder.
        device: a device id, "onnxruntime:cpu".
        options: threads, memory, cache.

    Raises:
        UnknownChoiceError: no such backend or device.
        DeviceError: the device is not usable here.
        SessionError: the engine refused the program.
    """
    name = device.partition(":")[0]
    if name not in BACKENDS:
        raise UnknownChoiceError("backend", name, BACKENDS)
    return BACKENDS[name].open(spec, folder, device, options or OpenOptions())
