"""Memory of an NVIDIA GPU through CUDA's runtime API (`cuda.bindings.runtime`): checked and owned."""

import contextlib
import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdk_runtimes.errors import DeviceError, SessionError
from sdk_runtimes.feeds import Array
from sdk_runtimes.require import require

MODULE = "cuda.bindings.runtime"


def cuda_runtime() -> Any:
    """CUDA's runtime bindings.

    Raises:
        MissingExtraError: they are not installed.
    """
    return require(MODULE, needed_for="device 'tensorrt:gpu'")


def call(function: Callable[..., Sequence[Any]], *args: Any) -> Any:
    """Calls a CUDA function, which returns its error code first; gives the rest, unpacked if it is one value.

    Raises:
        SessionError: CUDA reports an error.
    """
    status, *results = function(*args)
    if int(status):
        name = getattr(function, "__name__", str(function))
        raise SessionError(
            f"{name} failed: {_error_name(status)}",
            why="CUDA refused the call",
            fix="nvidia-smi shows whether the GPU is there and has memory left",
        )
    return results[0] if len(results) == 1 else results


def _error_name(status: Any) -> str:
    return str(getattr(status, "name", status))


def device_count() -> int:
    """Number of GPUs that CUDA can use.

    Raises:
        DeviceError: there is no driver, or an older one than the bindings need.
        MissingExtraError: CUDA's bindings are not installed.
    """
    status, count = cuda_runtime().cudaGetDeviceCount()
    if int(status):
        raise DeviceError(
            f"no NVIDIA GPU is usable here: {_error_name(status)}",
            why="CUDA found no driver, no GPU, or a driver older than its runtime",
            fix="run where an NVIDIA GPU and its driver are (nvidia-smi lists them), or load another target",
        )
    return int(count)


class Memory:
    """Blocks of device and page-locked host memory, and a stream, that are freed together.

    Args:
        index: which GPU.
    """

    def __init__(self, index: int) -> None:
        self._cuda = cuda_runtime()
        self._index = index
        self._device: list[Any] = []
        self._pinned: list[Any] = []
        self.use()
        self._stream = call(self._cuda.cudaStreamCreate)

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream)

    def use(self) -> None:
        """Makes the GPU current in this thread: CUDA keeps that per thread."""
        call(self._cuda.cudaSetDevice, self._index)

    def allocate(self, size_bytes: int) -> int:
        """Address of a new device block; never null, TensorRT wants an address for empty tensors too."""
        block = call(self._cuda.cudaMalloc, max(size_bytes, 1))
        self._device.append(block)
        return int(block)

    def release(self, address: int) -> None:
        """Frees one device block."""
        block = next(item for item in self._device if int(item) == address)
        self._device.remove(block)
        call(self._cuda.cudaFree, block)

    def pinned(self, like: Array) -> Array:
        """Page-locked host array of the same dtype and shape: copies from and to it run at full speed."""
        address = call(self._cuda.cudaMallocHost, max(like.nbytes, 1))
        self._pinned.append(address)
        block = (ctypes.c_uint8 * like.nbytes).from_address(int(address))
        flat: Array = np.ctypeslib.as_array(block)
        return flat.view(like.dtype).reshape(like.shape)

    def to_device(self, address: int, array: Array) -> None:
        """Queues a copy to the device; `array` is C-contiguous and stays alive until `wait`."""
        self._copy(address, array.ctypes.data, array.nbytes, self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def to_host(self, array: Array, address: int) -> None:
        """Queues a copy into `array`, which is complete after `wait`."""
        self._copy(array.ctypes.data, address, array.nbytes, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def _copy(self, target: int, source: int, size_bytes: int, kind: Any) -> None:
        if size_bytes:
            call(self._cuda.cudaMemcpyAsync, target, source, size_bytes, kind, self._stream)

    def wait(self) -> None:
        """Blocks until all that was queued is done."""
        call(self._cuda.cudaStreamSynchronize, self._stream)

    def __del__(self) -> None:
        # A session that nobody closed; at exit CUDA may be gone before us.
        with contextlib.suppress(Exception):
            self.free()

    def free(self) -> None:
        """Frees the blocks and the stream; may be called twice."""
        if self._stream is None:
            return
        self.use()
        self.wait()  # nothing may still write into what is freed
        for block in self._device:
            call(self._cuda.cudaFree, block)
        for block in self._pinned:
            call(self._cuda.cudaFreeHost, block)
        call(self._cuda.cudaStreamDestroy, self._stream)
        self._device, self._pinned, self._stream = [], [], None
