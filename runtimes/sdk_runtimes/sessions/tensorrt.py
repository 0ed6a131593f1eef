"""Programs in TensorRT's portable form, as engines on NVIDIA GPUs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sdk_runtimes.cuda import MODULE, Memory, call, cuda_runtime, device_count
from sdk_runtimes.errors import DeviceError, MissingExtraError, SdkError, SessionError, UnknownChoiceError
from sdk_runtimes.feeds import Array
from sdk_runtimes.opening import Device, OpenOptions, split_device
from sdk_runtimes.require import is_installed, require
from sdk_runtimes.session import Placement
from sdk_runtimes.specs import DTYPES, ProgramSpec, TensorSpec
from sdk_runtimes.tensorrt_engine import Loaded, load_engine

NAME = "tensorrt"
TARGETS = ("tensorrt",)
UNITS: Mapping[str, str] = MappingProxyType({"gpu": "gpu"})

_EXTRA = "pip install 'edge-sdk[tensorrt]'"


class _Runner:
    """One execution context with its stream and device buffers."""

    def __init__(self, loaded: Loaded, spec: ProgramSpec, index: int) -> None:
        self.memory = Memory(index)
        self._loaded = loaded
        self._spec = spec
        self._context = loaded.engine.create_execution_context()
        if self._context is None:
            self.memory.free()
            raise SessionError(
                f"TensorRT has no memory for another context of {spec.id!r}: {loaded.log.take()}",
                why=f"each one takes {loaded.engine.device_memory_size_v2} bytes on the GPU",
                fix="close sessions that are not in use, or share one between threads by turns",
            )
        self._blocks: dict[str, tuple[int, int]] = {}  # tensor -> (address, bytes)

    def feed(self, inputs: Sequence[Array]) -> None:
        """Sets shapes and queues the copies of C-contiguous arrays."""
        for item, array in zip(self._spec.inputs, inputs, strict=True):
            if not self._context.set_input_shape(item.name, tuple(array.shape)):
                self._fail(f"TensorRT refused shape {array.shape} for input {item.name!r}")
            self.memory.to_device(self.block(item.name, array.nbytes), array)

    def result_shape(self, item: TensorSpec) -> tuple[int, ...]:
        """Shape of an output for the input shapes that are set."""
        shape = tuple(int(size) for size in self._context.get_tensor_shape(item.name))
        if any(size < 0 for size in shape):
            self._fail(f"TensorRT does not know the shape of output {item.name!r} before it runs: {shape}")
        return shape

    def block(self, name: str, size_bytes: int) -> int:
        """Address of a tensor's device block, which grows when it must and is known to the context."""
        address, held = self._blocks.get(name, (0, -1))
        if size_bytes > held:
            if held >= 0:
                del self._blocks[name]
                self.memory.wait()  # the old block may still be read
                self.memory.release(address)
            address = self.memory.allocate(size_bytes)
            self._blocks[name] = (address, size_bytes)
            if not self._context.set_tensor_address(name, address):
                self._fail(f"TensorRT refused a buffer for {name!r}")
        return address

    def enqueue(self) -> None:
        """Queues the computation."""
        if not self._context.execute_async_v3(self.memory.stream):
            self._fail(f"TensorRT could not run {self._spec.id!r}")

    def collect(self, name: str, array: Array) -> None:
        """Queues the copy of an output into `array`."""
        self.memory.to_host(array, self._blocks[name][0])

    def close(self) -> None:
        self._context = None  # before the memory it points into
        self.memory.free()

    def _fail(self, what: str) -> None:
        raise SessionError(f"{what}: {self._loaded.log.take()}")


class TensorrtSession:
    """A program as a TensorRT engine.

    Args:
        loaded: the engine; clones share it, and its weights on the GPU.
        spec: what the program takes and gives.
        placement: which GPU.
        index: the same as a number.
    """

    def __init__(self, loaded: Loaded, spec: ProgramSpec, placement: Placement, index: int) -> None:
        self.placement = placement
        self._loaded: Loaded | None = loaded
        self._spec = spec
        self._index = index
        self._runner: _Runner | None = _Runner(loaded, spec, index)
        self._bound: list[_Runner] = []

    def run(self, feeds: Sequence[Array]) -> Sequence[Array]:
        """One run; arrays in the order of the program's inputs and outputs. Results are the caller's own."""
        runner = self._open()
        runner.memory.use()
        arrays = [np.asarray(array, order="C") for array in feeds]  # alive until `wait`
        runner.feed(arrays)
        results: list[Array] = []
        for item in self._spec.outputs:
            results.append(np.empty(runner.result_shape(item), DTYPES[item.dtype]))
            runner.block(item.name, results[-1].nbytes)
        runner.enqueue()
        for item, array in zip(self._spec.outputs, results, strict=True):
            runner.collect(item.name, array)
        runner.memory.wait()
        return results

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """Ties C-contiguous buffers to the program; the callable runs it from and into them.

        It has a context and device buffers of its own, so that `run` in between does not disturb it, and
        page-locked copies of the buffers, through which transfers run at full speed.
        """
        self._open()
        assert self._loaded is not None
        runner = _Runner(self._loaded, self._spec, self._index)
        self._bound.append(runner)
        sources = [runner.memory.pinned(array) for array in inputs]
        targets = [runner.memory.pinned(array) for array in outputs]
        runner.feed(sources)  # fixes shapes and addresses once
        for item, array in zip(self._spec.outputs, targets, strict=True):
            if runner.result_shape(item) != array.shape:
                raise SessionError(
                    f"output {item.name!r} has shape {runner.result_shape(item)}, not {array.shape}"
                )
            runner.block(item.name, array.nbytes)
        runner.memory.wait()
        return lambda: self._run_bound(runner, (inputs, sources), (targets, outputs))

    def _run_bound(
        self,
        runner: _Runner,
        ins: tuple[Sequence[Array], Sequence[Array]],
        outs: tuple[Sequence[Array], Sequence[Array]],
    ) -> None:
        self._open()
        runner.memory.use()
        for item, array, staged in zip(self._spec.inputs, *ins, strict=True):
            staged[...] = array
            runner.memory.to_device(runner.block(item.name, staged.nbytes), staged)
        runner.enqueue()
        for item, staged in zip(self._spec.outputs, outs[0], strict=True):
            runner.collect(item.name, staged)
        runner.memory.wait()
        for staged, array in zip(*outs, strict=True):
            array[...] = staged

    def clone(self) -> "TensorrtSession":
        """Another context of the same engine: the weights are shared, the activations are not."""
        self._open()
        assert self._loaded is not None
        return TensorrtSession(self._loaded, self._spec, self.placement, self._index)

    def close(self) -> None:
        """Frees buffers and contexts, and the engine with its last session; may be called twice."""
        for runner in (*self._bound, *([self._runner] if self._runner is not None else [])):
            runner.close()
        self._bound, self._runner, self._loaded = [], None, None

    def _open(self) -> _Runner:
        if self._runner is None:
            raise SessionError(f"the session of {self._spec.id!r} is closed", fix="sdk.load(...) it again")
        return self._runner


def open_session(spec: ProgramSpec, folder: Path, device: str, options: OpenOptions) -> TensorrtSession:
    """Loads or builds the engine of a program.

    Args:
        spec: the program; `spec.files` are relative to `folder`.
        folder: the bundle's folder.
        device: "tensorrt:gpu", or "tensorrt:gpu:1" for the second.
        options: memory limit and cache folder.

    Raises:
        UnknownChoiceError: no such unit.
        DeviceError: TensorRT, CUDA's bindings, the driver or the GPU is missing.
        SessionError: TensorRT refused the graph.
        MemoryLimitError: the engine needs more than `options.memory_limit_bytes`.
    """
    unit, index = split_device(device, NAME)
    if unit not in UNITS:
        raise UnknownChoiceError("tensorrt device", device, [f"{NAME}:{known}" for known in UNITS])
    trt = _usable(device, index)
    call(cuda_runtime().cudaSetDevice, index)  # engines are built and loaded for the current GPU
    loaded = load_engine(trt, spec, folder, options)
    _check_borders(trt, loaded.engine, spec)
    return TensorrtSession(loaded, spec, Placement(NAME, f"{unit}:{index}"), index)


def _usable(device: str, index: int) -> Any:
    """The `tensorrt` module, if it and a GPU are there.

    Raises:
        DeviceError: names what is missing.
    """
    try:
        trt = require("tensorrt", needed_for=f"device {device!r}")
        count = device_count()
    except MissingExtraError as error:
        raise DeviceError(
            f"{device!r} is not usable here: {error.what}",
            why=error.why,
            fix=f"{_EXTRA} where an NVIDIA GPU is; device='onnxruntime:cpu' runs the same file anywhere",
        ) from error
    if index >= count:
        raise DeviceError(
            f"{device!r} is not usable here",
            why=f"CUDA sees {count} GPUs",
            fix=f"device='{NAME}:gpu' takes the first" if count else "run where an NVIDIA GPU is",
        )
    return trt


def _check_borders(trt: Any, engine: Any, spec: ProgramSpec) -> None:
    """An engine of another program, or with other dtypes, would read past our buffers."""
    names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    for item in (*spec.inputs, *spec.outputs):
        found = np.dtype(trt.nptype(engine.get_tensor_dtype(item.name))) if item.name in names else None
        if found != DTYPES[item.dtype]:
            raise SessionError(
                f"the engine of {spec.id!r} has {item.name!r} as {found}, expected {item}",
                why="the cached plan or the file is of another program",
                fix="edge-sdk cache clear, then load again",
            )


def devices() -> tuple[Device, ...]:
    """The GPUs, or one entry that says what is missing."""
    missing = [module for module in ("tensorrt", MODULE) if not is_installed(module)]
    if missing:
        return (_unusable(f"{' and '.join(missing)} not installed; {_EXTRA}"),)
    try:
        _usable(f"{NAME}:gpu", 0)
        return tuple(_device(index) for index in range(device_count()))
    except SdkError as error:
        return (_unusable(f"{error.why or error.what}; {error.fix}"),)


def _unusable(note: str) -> Device:
    return Device(f"{NAME}:gpu", NAME, "gpu", "", usable=False, note=note)


def _device(index: int) -> Device:
    suffix = f":{index}" if index else ""
    return Device(f"{NAME}:gpu{suffix}", NAME, "gpu", _properties(index)["gpu"], usable=True)


def _properties(index: int) -> Mapping[str, str]:
    found = call(cuda_runtime().cudaGetDeviceProperties, index)
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    return {"gpu": name, "compute_capability": f"{found.major}.{found.minor}"}


def identity(device: str) -> Mapping[str, str]:
    """What a verdict or a compiled plan depends on, apart from the bundle."""
    _, index = split_device(device, NAME)
    trt = _usable(device, index)
    driver = call(cuda_runtime().cudaDriverGetVersion)
    return {"tensorrt": str(trt.__version__), "cuda_driver": str(driver), **_properties(index)}
