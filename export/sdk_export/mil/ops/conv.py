"""Convolutions over one, two or three spatial axes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own spelling

from sdk_export.mil.ops.arguments import array, ints, tensor
from sdk_export.mil.ops.padding import Pairs, pairs_of, spatial_pads, torch_order
from sdk_export.mil.weights import Array

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Any = 1,
) -> Array:
    """Cross-correlation of x (N, C_in, …) with weight (C_out, C_in / groups, …), zero-padded."""
    spatial = x.ndim - 2
    stride, dilation = ints(strides, 1, spatial), ints(dilations, 1, spatial)
    pads = spatial_pads(pad_type, pad, x.shape[2:], list(weight.shape[2:]), stride, dilation)
    padded = F.pad(tensor(x), torch_order(pads))
    offset = None if bias is None else tensor(bias)
    return array(
        _CONV[spatial](padded, tensor(weight), offset, stride=stride, dilation=dilation, groups=int(groups))
    )


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Array | None = None,
    output_shape: Array | None = None,
    pad_type: str = "valid",
    strides: Array | None = None,
    dilations: Array | None = None,
    groups: Any = 1,
) -> Array:
    """Transposed convolution; weight is (C_in, C_out / groups, …).

    The full result is cut by `pad` at both ends ("custom") or to size * stride ("same"). With
    `output_shape` the cut at the end is whatever that leaves; what it asks beyond the full result is 0
    (plus bias), as with torch's `output_padding`.
    """
    spatial = x.ndim - 2
    stride, dilation = ints(strides, 1, spatial), ints(dilations, 1, spatial)
    transposed = _CONV_TRANSPOSE[spatial]
    full = transposed(tensor(x), tensor(weight), stride=stride, dilation=dilation, groups=int(groups))
    cuts = _cuts(
        pad_type,
        pad,
        output_shape,
        tuple(full.shape[2:]),
        [s * n for s, n in zip(stride, x.shape[2:], strict=True)],
    )
    result = F.pad(full, torch_order([(-before, -after) for before, after in cuts]))
    return array(result if bias is None else result + _per_channel(bias, spatial))


def _cuts(
    pad_type: str, pad: Array | None, output_shape: Array | None, full: tuple[int, ...], same: list[int]
) -> Pairs:
    """How much of the full result goes, before and after every axis; negative means that zeros come."""
    if pad_type == "same":
        wanted = same if output_shape is None else ints(output_shape)[2:]
        totals = [has - wants for has, wants in zip(full, wanted, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    cuts = [(0, 0)] * len(full) if pad_type == "valid" else pairs_of(pad, len(full))
    if output_shape is None:
        return cuts
    wanted = ints(output_shape)[2:]
    return [
        (before, has - before - wants) for (before, _), has, wants in zip(cuts, full, wanted, strict=True)
    ]


def _per_channel(bias: Array, spatial: int) -> torch.Tensor:
    return tensor(bias).reshape(1, -1, *[1] * spatial)


OPS: Mapping[str, Callable[..., Array]] = {"conv": conv, "conv_transpose": conv_transpose}
