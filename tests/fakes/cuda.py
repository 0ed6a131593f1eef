# ruff: noqa: N801, N802, N815 - names of the library
"""A stand-in for `cuda.bindings.runtime`: GPUs made of host memory that only this module can reach.

Faithful in what our code could get wrong:
- device addresses are no host addresses: reading one, or copying past a block's end, is an error;
- work queued on a stream happens at `cudaStreamSynchronize`, not before: a forgotten wait shows;
- blocks, streams and the current GPU (kept per thread) belong together;
- functions give (error, *results), freeing twice is an error, and what was never freed is counted.
"""

import ctypes
import enum
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

_FIRST_ADDRESS = 0x7000_0000_0000
_GAP = 1 << 20  # between blocks: overruns hit nothing


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


@dataclass
class Properties:
    name: bytes
    major: int
    minor: int


@dataclass
class Stream:
    device: int
    queue: list[Callable[[], None]] = field(default_factory=list)


OK = cudaError_t.cudaSuccess


class FakeCuda:
    """State of a machine with GPUs, and the functions of the module.

    Args:
        gpus: how many there are.
        memory_bytes: of each; more is refused.
        driver: whether there is one.
    """

    def __init__(self, gpus: int = 1, *, memory_bytes: int = 1 << 28, driver: bool = True) -> None:
        self.gpus = gpus
        self.memory_bytes = memory_bytes
        self.driver = driver
        self.blocks: dict[int, tuple[int, np.ndarray]] = {}  # address -> (GPU, bytes)
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, Stream] = {}
        self.allocations = 0
        self._addresses = itertools.count(_FIRST_ADDRESS, 1 << 32)
        self._handles = itertools.count(0x5000, 16)
        self._local = threading.local()

    def module(self) -> ModuleType:
        """What `import cuda.bindings.runtime` gives."""
        module = ModuleType("cuda.bindings.runtime")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.cudaError_t = cudaError_t
        module.cudaMemcpyKind = cudaMemcpyKind
        for name in dir(self):
            if name.startswith("cuda"):
                setattr(module, name, getattr(self, name))
        return module

    @property
    def current(self) -> int:
        """The GPU of this thread; 0 until `cudaSetDevice`."""
        return int(getattr(self._local, "device", 0))

    def leaks(self) -> dict[str, int]:
        """What is still held."""
        return {"blocks": len(self.blocks), "pinned": len(self.pinned), "streams": len(self.streams)}

    def block(self, address: int, size_bytes: int, device: int) -> np.ndarray:
        """The bytes behind a device address; the address may lie inside a block.

        Raises:
            LookupError: no block of this GPU holds these bytes.
        """
        for start, (owner, content) in self.blocks.items():
            if start <= address < start + max(len(content), 1):
                if owner != device or address + size_bytes > start + len(content):
                    break
                return content[address - start : address - start + size_bytes]
        raise LookupError(f"{size_bytes} bytes at {address:#x} are not on GPU {device}")

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        if not self.driver:
            return cudaError_t.cudaErrorInsufficientDriver, None
        return (OK, self.gpus) if self.gpus else (cudaError_t.cudaErrorNoDevice, None)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        if not 0 <= device < self.gpus:
            return (cudaError_t.cudaErrorInvalidDevice,)
        self._local.device = device
        return (OK,)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return OK, Properties(f"Fake GPU {device}".encode(), 9, 0)

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return OK, 12080

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        handle = next(self._handles)
        self.streams[handle] = Stream(self.current)
        return OK, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        found = self.streams.pop(int(stream), None)
        return (cudaError_t.cudaErrorInvalidResourceHandle if found is None or found.queue else OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        found = self.streams.get(int(stream))
        if found is None or found.device != self.current:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        work, found.queue = found.queue, []
        for step in work:
            step()
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        held = sum(len(content) for owner, content in self.blocks.values() if owner == self.current)
        if size <= 0:
            return OK, 0  # as CUDA does: a null pointer
        if held + size > self.memory_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, None
        address = next(self._addresses) + _GAP
        self.blocks[address] = (self.current, np.full(size, 0xA5, np.uint8))  # never zeros by luck
        self.allocations += 1
        return OK, address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        return (OK if self.blocks.pop(int(address), None) else cudaError_t.cudaErrorInvalidValue,)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        block = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(block)
        self.pinned[address] = block
        self.allocations += 1
        return OK, address

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return (OK if self.pinned.pop(int(address), None) else cudaError_t.cudaErrorInvalidValue,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: cudaMemcpyKind, stream: int
    ) -> tuple[Any, ...]:
        queue = self.streams.get(int(stream))
        if queue is None or queue.device != self.current:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        to_device = kind == cudaMemcpyKind.cudaMemcpyHostToDevice
        try:
            content = self.block(target if to_device else source, size, queue.device)
        except LookupError:
            return (cudaError_t.cudaErrorInvalidValue,)
        host = source if to_device else target
        if host >= _FIRST_ADDRESS and any(start <= host < start + _GAP for start in self.blocks):
            return (cudaError_t.cudaErrorInvalidValue,)
        queue.queue.append(lambda: _copy(content, host, size, to_device=to_device))
        return (OK,)


def _copy(content: np.ndarray, host: int, size: int, *, to_device: bool) -> None:
    pointers = (content.ctypes.data, host) if to_device else (host, content.ctypes.data)
    ctypes.memmove(*pointers, size)
