"""How many elements go before and after each spatial axis."""

import math

from sdk_export.mil.ops.arguments import ints
from sdk_export.mil.weights import Array

Pairs = list[tuple[int, int]]


def pairs_of(pad: Array | None, count: int) -> Pairs:
    """MIL's flat [before_0, after_0, before_1, …] as pairs."""
    flat = ints(pad, count=2 * count)
    return list(zip(flat[::2], flat[1::2], strict=True))


def spatial_pads(
    pad_type: str,
    pad: Array | None,
    sizes: tuple[int, ...],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
) -> Pairs:
    """Padding before and after every spatial axis, for each of MIL's `pad_type`s.

    `valid` is none and `custom` is `pad`. `same` makes the output ceil(size / stride) long; the odd
    element goes after, with `same_lower` before.
    """
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        return pairs_of(pad, len(sizes))
    totals = [
        max(0, (math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size)
        for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    if pad_type == "same_lower":
        return [(total - total // 2, total // 2) for total in totals]
    if pad_type == "same":
        return [(total // 2, total - total // 2) for total in totals]
    raise ValueError(f"pad_type {pad_type!r} is none of 'valid', 'same', 'same_lower', 'custom'")


def torch_order(pairs: Pairs) -> list[int]:
    """Pairs as `torch.nn.functional.pad` wants them: last axis first."""
    return [amount for pair in reversed(pairs) for amount in pair]
