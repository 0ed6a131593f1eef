"""Widths that the device computes without waste.

Blocked layouts hold channels in blocks of one vector register, and a block that is not full costs as much as
a full one. Measured with ONNX Runtime 1.31 on AVX512, 1 thread: a 3 × 3 convolution of 64 channels at 28 × 28
takes 0.265 ms for every output width from 18 to 32 and 0.38 ms from 34 to 48; a depthwise one takes 0.018 ms
at 20 and 0.035 ms at 18, because widths that are no multiple of 4 leave the blocked layout. So does an input
of less than one block: a 1 × 1 convolution at 112 × 112 takes 0.50 ms from 16 to 96 channels and 0.63 ms from
12 to 64.
"""

import math
import platform
from types import MappingProxyType

from sdk_runtimes.errors import ArgumentError, UnknownChoiceError

AUTO = "auto"

# torch.backends.cpu.get_cpu_capability() -> float32 values in a vector register. ONNX Runtime's NCHWc blocks
# (MlasNchwcGetBlockSize) and oneDNN's nChw8c and nChw16c, which OpenVINO takes, have the same sizes.
_LANES = MappingProxyType({"AVX512": 16, "AVX2": 8, "SVE256": 8, "DEFAULT": 4})
_ARM_LANES = 4  # NEON; torch says DEFAULT there, which on x86 means SSE and is 4 as well
_TENSOR_CORE = 8  # NVIDIA's guide to matrix products: fp16 dimensions are multiples of 8

LEAST_CHOICES = 6
"""A group that would have fewer widths than this takes a smaller step."""
SMALLEST_STEP = 4
"""Down to which the step is made smaller for the sake of choice: below it the blocked layout is left."""


def vector_width(device: str = "cpu") -> int:
    """How many channels fill a vector of the device.

    Args:
        device: a kind ("cpu", "gpu") or a device id ("onnxruntime:cpu", "openvino:gpu:0"); "auto" counts as
            the CPU here.

    Raises:
        UnknownChoiceError: a kind whose vectors we do not know.
    """
    parts = set(device.split(":"))
    if parts & {"cpu", AUTO}:
        return _cpu_lanes()
    if parts & {"gpu", "cuda", "tensorrt", "directml"}:
        return _TENSOR_CORE
    raise UnknownChoiceError("device for round_to='auto'", device, ("cpu", "gpu"), fix="pass round_to=16")


def _cpu_lanes() -> int:
    import torch

    if platform.machine().lower() in ("arm64", "aarch64"):
        return max(_ARM_LANES, _LANES.get(torch.backends.cpu.get_cpu_capability(), _ARM_LANES))
    return _LANES.get(torch.backends.cpu.get_cpu_capability(), _LANES["DEFAULT"])


def resolve_round_to(round_to: int | str, device: str = "cpu") -> int:
    """The number of channels that widths shall be a multiple of.

    Args:
        round_to: "auto" for the vector width of the device; a number; 1 for no rounding.
        device: see `vector_width`.

    Raises:
        ArgumentError: neither "auto" nor a positive whole number.
        UnknownChoiceError: "auto" for a device whose vectors we do not know.
    """
    if round_to == AUTO:
        return vector_width(device)
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise ArgumentError(
            f"round_to is {round_to!r}",
            why="widths are rounded to a multiple of it",
            fix="round_to='auto', round_to=8, or round_to=1 for no rounding",
        )
    return round_to


def least_units(units: int, round_to: int, *, channels: int = 1) -> int:
    """No group that is wider than a block gets narrower than one: that would be slower.

    Args:
        units: how many the group has.
        round_to: channels of a block.
        channels: that one unit brings.
    """
    block = -(-round_to // channels)
    return block if units > block else 1


def unit_step(units: int, round_to: int, *, channels: int = 1, rows: int = 1) -> int:
    """The step between a group's widths, in units.

    Where the group is so small that fewer than `LEAST_CHOICES` widths were left, the step is halved down to
    `SMALLEST_STEP` channels, and further only while there would be no width but the full one.

    Args:
        units: how many the group has.
        round_to: channels that a width shall be a multiple of.
        channels: that one unit brings (64 where the units are heads of 64).
        rows: every one of so many rows keeps as many units as the others; the step is a multiple of it.
    """
    wanted = round_to
    while True:
        step = math.lcm(wanted // math.gcd(wanted, channels), rows)
        smaller = wanted // 2 if wanted % 2 == 0 else 1
        least = LEAST_CHOICES if smaller >= SMALLEST_STEP else 2
        if wanted == 1 or units // step >= least:
            return step
        wanted = smaller
