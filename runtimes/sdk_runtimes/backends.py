"""Which engine opens which program: one row a backend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sdk_runtimes.errors import UnknownChoiceError
from sdk_runtimes.opening import Device, OpenOptions
from sdk_runtimes.session import RawSession
from sdk_runtimes.sessions import onnxruntime, openvino
from sdk_runtimes.specs import ProgramSpec

__all__ = ["BACKENDS", "Backend", "Device", "OpenOptions", "open_raw"]


@dataclass(frozen=True)
class Backend:
    """One engine.

    Attributes:
        name: the first half of its device ids.
        targets: the formats it opens, the preferred one first.
        devices: lists where it can run, and where it could but for something missing.
        open: opens a program on one of them.
    """

    name: str
    targets: tuple[str, ...]
    devices: Callable[[], tuple[Device, ...]]
    open: Callable[[ProgramSpec, Path, str, OpenOptions], RawSession]


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        backend.name: backend
        for backend in (
            Backend("onnxruntime", onnxruntime.TARGETS, onnxruntime.devices, onnxruntime.open_session),
            Backend("openvino", openvino.TARGETS, openvino.devices, openvino.open_session),
        )
    }
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
