"""Programs in Core ML form, through coremltools on macOS."""

import contextlib
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sdk_runtimes.coreml_io import carry, coreml_name, output_names, restore
from sdk_runtimes.cpu import cpu_name
from sdk_runtimes.errors import DeviceError, SessionError, UnknownChoiceError
from sdk_runtimes.feeds import Array
from sdk_runtimes.opening import Device, OpenOptions, split_device
from sdk_runtimes.require import is_installed, require
from sdk_runtimes.session import Placement
from sdk_runtimes.specs import ProgramSpec

NAME = "coreml"
TARGETS = ("coreml",)

# unit -> kind; `all` lets Core ML choose between the three
UNITS: Mapping[str, str] = MappingProxyType({"all": "auto", "gpu": "gpu", "npu": "npu", "cpu": "cpu"})

# unit -> member of coremltools.ComputeUnit; Core ML keeps the CPU in reach of every unit
_COMPUTE_UNITS = MappingProxyType(
    {"all": "ALL", "gpu": "CPU_AND_GPU", "npu": "CPU_AND_NE", "cpu": "CPU_ONLY"}
)

_COMPILED = "program.mlmodelc"


class CoremlSession:
    """A program in Core ML.

    Args:
        engine: a `coremltools` `MLModel` or `CompiledMLModel`.
        spec: what the program takes and gives.
        placement: the compute unit asked for; Core ML does not tell where each operation runs.
    """

    def __init__(self, engine: Any, spec: ProgramSpec, placement: Placement) -> None:
        self.placement = placement
        self._engine = engine
        self._spec = spec
        self._inputs = tuple(coreml_name(item.name) for item in spec.inputs)
        self._outputs = output_names([i.name for i in spec.inputs], [o.name for o in spec.outputs])

    def run(self, feeds: Sequence[Array]) -> Sequence[Array]:
        """One run; arrays in the order of the program's inputs and outputs. Results are the caller's own."""
        carried = {
            name: carry(array, item)
            for name, item, array in zip(self._inputs, self._spec.inputs, feeds, strict=True)
        }
        results = self._engine.predict(carried)
        return [
            restore(np.asarray(results[name]), item)
            for name, item in zip(self._outputs, self._spec.outputs, strict=True)
        ]

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """Ties buffers to the program. coremltools allocates its own results, so they are copied out."""

        def call() -> None:
            for target, result in zip(outputs, self.run(inputs), strict=True):
                target[...] = result

        return call

    def clone(self) -> "CoremlSession":
        """The same model: Core ML's `prediction` is thread-safe."""
        return CoremlSession(self._engine, self._spec, self.placement)

    def close(self) -> None:
        """Frees the model once its last clone is closed."""
        self._engine = None


def open_session(spec: ProgramSpec, folder: Path, device: str, options: OpenOptions) -> CoremlSession:
    """Opens a Core ML program.

    Args:
        spec: the program; its entry is `<name>.mlpackage/Manifest.json`, the package the folder above.
        folder: the bundle's folder.
        device: "coreml:all", "coreml:gpu", "coreml:npu" or "coreml:cpu".
        options: cache; Core ML chooses its threads itself.

    Raises:
        UnknownChoiceError: no such unit.
        DeviceError: this is not macOS.
        MissingExtraError: coremltools is not installed.
        SessionError: Core ML refused the package.
    """
    unit, _ = split_device(device, NAME)
    if unit not in UNITS:
        raise UnknownChoiceError("coreml device", device, [f"{NAME}:{known}" for known in UNITS])
    coremltools = _coremltools(device)
    compute_unit = coremltools.ComputeUnit[_COMPUTE_UNITS[unit]]
    package = (folder / spec.entry).parent
    try:
        engine = _load(coremltools, package, compute_unit, options.cache_path)
    except Exception as error:
        raise SessionError(
            f"Core ML did not load {package.name!r} on {device}: {error}",
            why="it refused the program, or the system is older than the program's minimum",
            fix="update macOS, or export with an older minimum target",
        ) from error
    return CoremlSession(engine, spec, Placement(NAME, unit))


def _load(coremltools: Any, package: Path, compute_unit: Any, cache_path: Path | None) -> Any:
    """Compiles a package, or takes the compilation of an earlier load."""
    compiled = cache_path / _COMPILED if cache_path else None
    if compiled and compiled.exists():
        return coremltools.models.CompiledMLModel(str(compiled), compute_units=compute_unit)
    model = coremltools.models.MLModel(str(package), compute_units=compute_unit)
    if compiled:
        # Core ML throws its compilation away with the process. Keeping it is a bonus, not a must.
        with contextlib.suppress(OSError):
            shutil.copytree(model.get_compiled_model_path(), compiled)
    return model


def _coremltools(device: str) -> Any:
    if not _is_macos():
        raise DeviceError(
            f"{device} is not usable here",
            why=f"Core ML runs on Apple's systems, this is {sys.platform}",
            fix="load the bundle on a Mac, or another of its programs here: load(..., device='cpu')",
        )
    return require("coremltools", needed_for=f"device {device!r}")


def _is_macos() -> bool:
    return sys.platform == "darwin"


def devices() -> tuple[Device, ...]:
    """Core ML's compute units; usable on macOS with coremltools."""
    note = ""
    if not _is_macos():
        note = f"Core ML runs on Apple's systems, this is {sys.platform}"
    elif not is_installed("coremltools"):
        note = "pip install 'edge-sdk[coreml]'"
    name = "" if note else cpu_name()
    return tuple(
        Device(f"{NAME}:{unit}", NAME, kind, name, usable=not note, note=note) for unit, kind in UNITS.items()
    )


def identity(device: str) -> Mapping[str, str]:
    """What a verdict or a compiled blob depends on, apart from the bundle."""
    return {
        "coremltools": _coremltools(device).__version__,
        "macos": platform.mac_ver()[0],
        "cpu": cpu_name(),
    }
