"""How much memory a program will take, told before it is loaded.

Peak growth of fresh processes on Linux (onnxruntime 1.31, openvino 2026.4), from before the engine opened the
program to after three runs; W = weights as they lie in the file:

                                          MatMul stack, 268 MB     3x3 Conv stack, 113 MB
    onnxruntime fp32                      1.1 W to 1.2 W           2.2 W to 2.5 W (laid out anew)
    onnxruntime fp32, lean                1.04 W to 1.1 W          1.3 W
    onnxruntime fp16 (widened to fp32)    2.5 W, lean 3 W          4.9 W
    openvino fp32                         2.2 W (file and repacked copy), from its cache 3.1 W    2.4 W, 3.4 W
    openvino fp16 (computed in fp32)      4.4 W, from its cache 5.3 W                             4.9 W

Activations took 1.4 times (onnxruntime), 1.8 times (openvino) and 1.1 times (onnxruntime, lean) the peak of
live tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sdk_runtimes.errors import MemoryLimitError
from sdk_runtimes.memory_sizes import format_size
from sdk_runtimes.specs import ProgramSpec


@dataclass(frozen=True)
class Factors:
    """Upper bounds of what was measured.

    Attributes:
        weights: of fp32 programs, in sizes of the weight file.
        half_weights: of fp16 and bf16 programs, likewise: an engine that widens them holds both.
        activations: in peaks of live tensors.
        engine_bytes: libraries, thread pools, graph.
    """

    weights: float
    half_weights: float
    activations: float
    engine_bytes: int


_MB = 10**6

# (backend, lean) -> factors. Engines that ran on no machine of ours get the largest of those that did.
FACTORS: Mapping[tuple[str, bool], Factors] = MappingProxyType(
    {
        ("onnxruntime", False): Factors(2.6, 5.2, 2.0, 50 * _MB),
        ("onnxruntime", True): Factors(1.5, 5.2, 1.5, 50 * _MB),
        ("openvino", False): Factors(3.6, 5.6, 2.2, 90 * _MB),
        ("openvino", True): Factors(2.7, 5.2, 2.2, 90 * _MB),  # without its cache
    }
)
_UNMEASURED = Factors(3.6, 5.6, 2.2, 200 * _MB)


@dataclass(frozen=True)
class MemoryEstimate:
    """What loading and running a program takes at most, in parts.

    Attributes:
        weights_bytes: the weight file and the engine's copies of it.
        activations_bytes: intermediate tensors and the engine's slack.
        engine_bytes: libraries, thread pools, graph.
    """

    weights_bytes: int
    activations_bytes: int
    engine_bytes: int

    @property
    def total_bytes(self) -> int:
        """All parts."""
        return self.weights_bytes + self.activations_bytes + self.engine_bytes

    def __str__(self) -> str:
        return (
            f"{format_size(self.total_bytes)} = weights {format_size(self.weights_bytes)} + activations "
            f"{format_size(self.activations_bytes)} + engine {format_size(self.engine_bytes)}"
        )


def estimate(spec: ProgramSpec, backend: str, *, lean: bool = False) -> MemoryEstimate:
    """Upper bound on how far the process grows; within 3x of it for stacks of MatMul and Conv.

    Args:
        spec: the program; its activations are those of the largest sample that was exported.
        backend: the engine.
        lean: as in `OpenOptions`; engines without such a mode ignore it.
    """
    factors = FACTORS.get((backend, lean)) or FACTORS.get((backend, False)) or _UNMEASURED
    weights = factors.weights if spec.precision == "fp32" else factors.half_weights
    return MemoryEstimate(
        weights_bytes=round(weights * spec.weights_bytes),
        activations_bytes=round(factors.activations * spec.activations_bytes),
        engine_bytes=factors.engine_bytes,
    )


def must_be_lean(spec: ProgramSpec, backend: str, limit_bytes: int | None) -> bool:
    """Whether a program fits a limit only in the engine's lean mode.

    Raises:
        MemoryLimitError: it does not fit at all; holds the estimate and its parts.
    """
    if limit_bytes is None:
        return False
    ample = estimate(spec, backend)
    if ample.total_bytes <= limit_bytes:
        return False
    least = estimate(spec, backend, lean=True)
    if least.total_bytes <= limit_bytes:
        return True
    needed = -(-least.total_bytes // _MB)
    raise MemoryLimitError(
        f"program {spec.id!r} takes up to {least} on {backend}, the limit is {format_size(limit_bytes)}",
        why="it was refused before loading, so that it cannot take the process down half-way",
        fix=f'load(..., memory_limit="{needed}MB"), or a smaller model',
    )
