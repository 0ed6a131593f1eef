"""Pooling over one, two or three spatial axes."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own spelling

from sdk_export.mil.ops.arguments import array, ints, tensor
from sdk_export.mil.ops.padding import Pairs, spatial_pads, torch_order
from sdk_export.mil.weights import Array

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
# torch has no name for the sum; an average with divisor 1 exists for 2-D and 3-D only.
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _window(
    x: Array, kernel_sizes: Array, strides: Array | None, pad_type: str, pad: Array | None, ceil_mode: Any
) -> tuple[list[int], list[int], Pairs, Pairs]:
    """Kernel, strides, the padding there is, and the padding that a rounded-up output needs beyond it.

    Output size: floor, or with `ceil_mode` ceil, of (size + pads - kernel) / stride, plus 1; one window
    less if the last one would start beyond the input and its leading padding.
    """
    spatial = x.ndim - 2
    kernel, stride = ints(kernel_sizes), ints(strides, 1, spatial)
    pads = spatial_pads(pad_type, pad, x.shape[2:], kernel, stride, [1] * spatial)
    extra = []
    for size, k, s, (before, after) in zip(x.shape[2:], kernel, stride, pads, strict=True):
        whole = size + before + after - k
        count = (math.ceil(whole / s) if bool(ceil_mode) else whole // s) + 1
        if bool(ceil_mode) and (count - 1) * s >= size + before:
            count -= 1
        extra.append((0, max(0, (count - 1) * s - whole)))
    return kernel, stride, pads, extra


def max_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    ceil_mode: Any = False,
) -> Array:
    """Largest element of each window; padding never wins."""
    kernel, stride, pads, extra = _window(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    padded = F.pad(F.pad(tensor(x), torch_order(pads), value=-math.inf), torch_order(extra), value=-math.inf)
    return array(_MAX[x.ndim - 2](padded, kernel, stride))


def avg_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    exclude_padding_from_average: Any = False,
    ceil_mode: Any = False,
) -> Array:
    """Mean of each window.

    Padding counts as zeros, or not at all with `exclude_padding_from_average`; what `ceil_mode` adds
    beyond the padding never counts, as in torch.
    """
    kernel, stride, pads, extra = _window(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    ones = torch.ones(1, 1, *x.shape[2:])
    counted = F.pad(ones, torch_order(pads), value=0.0 if bool(exclude_padding_from_average) else 1.0)
    average = _AVERAGE[x.ndim - 2]
    total = average(F.pad(F.pad(tensor(x), torch_order(pads)), torch_order(extra)), kernel, stride)
    share = average(F.pad(counted, torch_order(extra)), kernel, stride)
    return array(total / share)


def l2_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    ceil_mode: Any = False,
) -> Array:
    """Root of the sum of squares of each window."""
    kernel, stride, pads, extra = _window(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    padded = F.pad(F.pad(tensor(x), torch_order(pads)), torch_order(extra))
    mean = _AVERAGE[x.ndim - 2](padded.square(), kernel, stride)
    return array(torch.sqrt(mean * math.prod(kernel)))


OPS: Mapping[str, Callable[..., Array]] = {"avg_pool": avg_pool, "l2_pool": l2_pool, "max_pool": max_pool}
