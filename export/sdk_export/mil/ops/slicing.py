"""Slices: reading and replacing them."""

from collections.abc import Callable, Mapping

import numpy as np

from sdk_export.mil.ops.arguments import bools, ints
from sdk_export.mil.weights import Array


def _slices(
    rank: int,
    begin: Array,
    end: Array,
    stride: Array | None,
    begin_mask: Array | None,
    end_mask: Array | None,
    squeeze_mask: Array | None,
) -> tuple[slice | int, ...]:
    """Python slices: a mask leaves that end open, `squeeze_mask` takes one element and drops the axis."""
    begins, ends, strides = ints(begin), ints(end), ints(stride, 1, rank)
    from_start, to_end = bools(begin_mask, rank), bools(end_mask, rank)
    single = bools(squeeze_mask, rank)
    return tuple(
        begins[i]
        if single[i] and not from_start[i]
        else 0
        if single[i]
        else slice(None if from_start[i] else begins[i], None if to_end[i] else ends[i], strides[i])
        for i in range(rank)
    )


def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """x[begin:end:stride] on every axis, as Python reads negative indices."""
    return np.asarray(x[_slices(x.ndim, begin, end, stride, begin_mask, end_mask, squeeze_mask)])


def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """`size` elements from `begin` on every axis; -1 takes all that remain."""
    starts = [at % length if at < 0 else at for at, length in zip(ints(begin), x.shape, strict=True)]
    cut = tuple(
        slice(start, None if count < 0 else start + count)
        for start, count in zip(starts, ints(size), strict=True)
    )
    return x[cut]


def slice_update(
    x: Array,
    update: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """`x` with the slice that `slice_by_index` would read replaced by `update`."""
    result = x.copy()
    cut = _slices(x.ndim, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    result[cut] = update.reshape(result[cut].shape)
    return result


OPS: Mapping[str, Callable[..., Array]] = {
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": slice_update,
}
