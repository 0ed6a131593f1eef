"""What this machine could do at best, and how near to it a program runs.

The roofline of Williams, Waterman and Patterson (CACM 52(4), 2009): a run takes at least
max(FLOPs / peak FLOP rate, bytes / bandwidth). Both peaks are measured here, by the engine itself and with
the same number of threads, not read off a data sheet.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np

from sdk.matmul_model import matmul_model
from sdk_runtimes.specs import DTYPES, ProgramSpec, TensorSpec

# Large enough for full speed; a run of half a millisecond often passes undisturbed even on a busy machine,
# where one of 1024 x 1024 never does.
_GEMM_SIZE = 384
_REPEATS = 25
_SMALLEST_BUFFER = 1 << 20  # below a mebibyte the call itself is what gets timed


@dataclass(frozen=True)
class Peaks:
    """What this machine reaches with a number of threads.

    Attributes:
        threads: compute threads used.
        gemm_gflops: fp32 matrix product in ONNX Runtime, 10^9 operations a second (a multiply-add is two).
    """

    threads: int
    gemm_gflops: float


@dataclass(frozen=True)
class Floor:
    """The least time a program can take on this machine.

    Attributes:
        compute_ms: its FLOPs over the measured fp32 GEMM peak.
        memory_ms: weights, inputs and outputs, moved once, over the bandwidth of a working set of that size.
        bandwidth_gbs: that bandwidth, 10^9 bytes a second.
        floor_ms: the larger of the two.
        bound: which one it is, "compute" or "memory".
    """

    compute_ms: float
    memory_ms: float
    bandwidth_gbs: float
    floor_ms: float
    bound: str

    def share(self, latency_ms: float) -> float:
        """The part of what the machine can do that `latency_ms` reaches; 1 is the floor itself."""
        return self.floor_ms / latency_ms


def usable_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gemm_run(threads: int) -> Callable[[], object]:
    """One fp32 matrix product in ONNX Runtime, to be timed between the runs of programs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        matmul_model(_GEMM_SIZE), options, providers=["CPUExecutionProvider"]
    )
    feeds = {"X": np.ones((_GEMM_SIZE, _GEMM_SIZE), np.float32)}
    return lambda: session.run(None, feeds)


def peaks_of(threads: int, best_ms: float) -> Peaks:
    """The peak that the best of several `gemm_run` calls shows."""
    return Peaks(threads, 2 * _GEMM_SIZE**3 / best_ms / 1e6)


@cache
def measure_bandwidth(size_bytes: int, threads: int) -> float:
    """Bandwidth of copying a buffer, in 10^9 bytes a second; a read and a write count one byte each.

    Args:
        size_bytes: size of the working set: caches count as they would for a program of that size.
        threads: copies run in as many threads.
    """
    half = max(size_bytes, _SMALLEST_BUFFER) // 2  # source and destination together are the working set
    source, target = np.ones(half, np.uint8), np.empty(half, np.uint8)
    parts = [slice(half * i // threads, half * (i + 1) // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        together = _best_seconds(
            lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))
        )
    # Handing a small buffer to threads costs more than copying it.
    seconds = min(together, _best_seconds(lambda: np.copyto(target, source)))
    return 2 * half / seconds / 1e9


def program_bytes(spec: ProgramSpec, sizes: dict[str, int]) -> int:
    """Bytes that any engine must move at least once in a run: weights, inputs and outputs."""
    return spec.weights_bytes + sum(_tensor_bytes(item, sizes) for item in (*spec.inputs, *spec.outputs))


def floor_of(spec: ProgramSpec, sizes: dict[str, int], peaks: Peaks) -> Floor | None:
    """The floor of a program on this CPU, or None where its FLOPs are not known.

    Args:
        spec: its `flops` are those at the sample shapes.
        sizes: the size of each symbol.
        peaks: of this machine, with the threads that the program has.
    """
    if not spec.flops:
        return None
    size_bytes = program_bytes(spec, sizes)
    bandwidth = measure_bandwidth(size_bytes, peaks.threads)
    compute_ms = spec.flops / peaks.gemm_gflops / 1e6
    memory_ms = size_bytes / bandwidth / 1e6
    bound = "compute" if compute_ms >= memory_ms else "memory"
    return Floor(compute_ms, memory_ms, bandwidth, max(compute_ms, memory_ms), bound)


def _tensor_bytes(spec: TensorSpec, sizes: dict[str, int]) -> int:
    # An output may be an expression over symbols ("2*batch"): it counts as 1, so the bound stays a bound.
    shape = [dim if isinstance(dim, int) else sizes.get(dim, 1) for dim in spec.shape]
    return prod(shape) * DTYPES[spec.dtype].itemsize


def _best_seconds(call: Callable[[], object]) -> float:
    """The fastest of several calls: a peak is what the machine can do, not what it did while disturbed."""
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
