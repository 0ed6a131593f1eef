"""Operations that move elements without computing with them: shapes, joins, splits, padding, blocks."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812  # torch's own spelling

from sdk_export.mil.ops.arguments import array, axes_of, ints, tensor
from sdk_export.mil.ops.padding import pairs_of
from sdk_export.mil.weights import Array

_NUMPY_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def reshape(x: Array, shape: Array) -> Array:
    """Another shape of as many elements.

    -1 is whatever is left. 0 takes the size of x's axis, counted from the right (iOS 17), and 1 where x
    has no such axis.
    """
    wanted = ints(shape)
    for position, size in enumerate(wanted):
        source = position - len(wanted)
        if size == 0 and x.size > 0:
            wanted[position] = x.shape[source] if -source <= x.ndim else 1
    return x.reshape(wanted)


def reshape_like(
    x: Array,
    ref_tensors: tuple[Array, ...],
    begins: tuple[Array, ...],
    ends: tuple[Array, ...],
    end_masks: tuple[Array, ...],
) -> Array:
    """The shape that pieces of other tensors' shapes give, joined."""
    shape: list[int] = []
    for reference, begin, end, to_end in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape += reference.shape[int(begin) : None if bool(to_end) else int(end)]
    return x.reshape(shape)


def expand_dims(x: Array, axes: Array) -> Array:
    """New axes of size 1, at these places of the result."""
    return np.expand_dims(x, tuple(ints(axes)))


def squeeze(x: Array, axes: Array | None = None) -> Array:
    """Drops axes of size 1; a named axis of another size stays, as in torch."""
    named = range(x.ndim) if axes is None else [axis % x.ndim for axis in ints(axes)]
    return np.squeeze(x, tuple(axis for axis in named if x.shape[axis] == 1))


def transpose(x: Array, perm: Array) -> Array:
    """Axes in another order."""
    return np.transpose(x, ints(perm))


def concat(values: tuple[Array, ...], axis: Any, interleave: Any = False) -> Array:
    """Joins along an axis, scalars to a vector; `interleave` takes one slice of each in turn."""
    if not bool(interleave):
        return np.concatenate([np.atleast_1d(value) for value in values], int(axis))
    at = int(axis) % values[0].ndim
    stacked = np.stack(values, at + 1)
    return stacked.reshape(*stacked.shape[:at], -1, *stacked.shape[at + 2 :])


def split(x: Array, axis: Any, num_splits: Any = None, split_sizes: Array | None = None) -> tuple[Array, ...]:
    """Pieces along an axis: equal ones, or of these sizes."""
    if split_sizes is not None:
        return tuple(np.split(x, np.cumsum(ints(split_sizes))[:-1], int(axis)))
    return tuple(np.split(x, int(num_splits), int(axis)))


def stack(values: tuple[Array, ...], axis: Any) -> Array:
    """Joins along a new axis."""
    return np.stack(values, int(axis))


def tile(x: Array, reps: Array) -> Array:
    """Repeats the whole tensor along every axis."""
    return np.tile(x, ints(reps))


def pad(x: Array, pad: Array, mode: str = "constant", constant_val: Any = 0.0) -> Array:
    """Pads the last len(pad) / 2 axes."""
    count = len(ints(pad)) // 2
    widths = [(0, 0)] * (x.ndim - count) + pairs_of(pad, count)
    if mode == "constant":
        return np.pad(x, widths, constant_values=np.asarray(constant_val).astype(x.dtype))
    numpy_mode: Any = _NUMPY_PAD_MODES[mode]  # numpy's overloads want a literal
    return np.asarray(np.pad(x, widths, mode=numpy_mode))


def fill(shape: Array, value: Any = 0.0) -> Array:
    """A tensor of this shape and one value."""
    return np.full(ints(shape), value)


def fill_like(ref_tensor: Array, value: Any = 0.0) -> Array:
    """A tensor of another's shape and one value."""
    return np.full(ref_tensor.shape, value)


def range_1d(end: Array, start: Array, step: Array) -> Array:
    """start, start + step, … below (for a negative step above) end."""
    count = max(0, math.ceil((end - start) / step))
    return np.asarray(start + step * np.arange(count, dtype=np.asarray(step).dtype))


def flatten2d(x: Array, axis: Any = 1) -> Array:
    """A matrix: axes before `axis` times axes from it on."""
    return x.reshape(math.prod(x.shape[: int(axis)]), -1)


def non_zero(x: Array) -> Array:
    """Indices of the elements that are not 0, one row an element."""
    return np.argwhere(x)


def one_hot(
    indices: Array, one_hot_vector_size: Any, axis: Any = -1, on_value: Any = 1, off_value: Any = 0
) -> Array:
    """`on_value` where a new axis's index is the element's value, else `off_value`."""
    hot = np.expand_dims(indices, int(axis))
    shape = [1] * hot.ndim
    shape[int(axis)] = -1
    return np.asarray(
        np.where(hot == np.arange(int(one_hot_vector_size)).reshape(shape), on_value, off_value)
    )


def reverse(x: Array, axes: Array | None = None) -> Array:
    """The other way round along these axes (all where none are given)."""
    return np.flip(x, axes_of(axes))


def reverse_sequence(x: Array, lengths: Array, seq_axis: Any = 0, batch_axis: Any = 0) -> Array:
    """Reverses the first lengths[b] elements along `seq_axis` for every b of `batch_axis`."""
    moved = np.moveaxis(x, (int(batch_axis), int(seq_axis)), (0, 1)).copy()
    for row, length in zip(moved, ints(lengths), strict=True):
        row[:length] = row[:length][::-1].copy()
    return np.moveaxis(moved, (0, 1), (int(batch_axis), int(seq_axis)))


def sliding_windows(x: Array, axis: Any, size: Any, stride: Any = 1) -> Array:
    """All windows along an axis; a new axis after it holds their elements."""
    at = int(axis) % x.ndim
    windows = np.lib.stride_tricks.sliding_window_view(x, int(size), at)
    every = np.moveaxis(windows, -1, at + 1)
    return every[(slice(None),) * at + (slice(None, None, int(stride)),)]


def depth_to_space(x: Array, block_size: Any) -> Array:
    """(N, C b², H, W) to (N, C, H b, W b); the block is the slowest part of the channels (DCR order)."""
    n, c, h, w = x.shape
    b = int(block_size)
    blocks = x.reshape(n, b, b, c // (b * b), h, w)
    return blocks.transpose(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(x: Array, block_size: Any) -> Array:
    """The inverse of `depth_to_space`."""
    n, c, h, w = x.shape
    b = int(block_size)
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def pixel_shuffle(x: Array, upscale_factor: Any) -> Array:
    """(N, C f², H, W) to (N, C, H f, W f); torch's order of channels."""
    return array(F.pixel_shuffle(tensor(x), int(upscale_factor)))


def pixel_unshuffle(x: Array, downscale_factor: Any) -> Array:
    """The inverse of `pixel_shuffle`."""
    return array(F.pixel_unshuffle(tensor(x), int(downscale_factor)))


def space_to_batch(x: Array, block_shape: Array, paddings: Array) -> Array:
    """Pads, then deals the spatial positions of a block out to the batch axis."""
    (by, bx), widths = ints(block_shape), np.asarray(paddings).tolist()
    padded = np.pad(x, [(0, 0), (0, 0), *widths])
    n, c, h, w = padded.shape
    blocks = padded.reshape(n, c, h // by, by, w // bx, bx)
    return blocks.transpose(3, 5, 0, 1, 2, 4).reshape(n * by * bx, c, h // by, w // bx)


def batch_to_space(x: Array, block_shape: Array, crops: Array) -> Array:
    """The inverse of `space_to_batch`: gathers blocks, then cuts."""
    (by, bx), ((top, bottom), (left, right)) = ints(block_shape), np.asarray(crops).tolist()
    n, c, h, w = x.shape
    blocks = x.reshape(by, bx, n // (by * bx), c, h, w).transpose(2, 3, 4, 0, 5, 1)
    whole = blocks.reshape(n // (by * bx), c, h * by, w * bx)
    return whole[:, :, top : h * by - bottom, left : w * bx - right]


def crop(x: Array, crop_height: Array, crop_width: Array) -> Array:
    """Cuts the last two axes at both ends."""
    (top, bottom), (left, right) = ints(crop_height), ints(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


OPS: Mapping[str, Callable[..., Array | tuple[Array, ...]]] = {
    "batch_to_space": batch_to_space,
    "concat": concat,
    "crop": crop,
    "depth_to_space": depth_to_space,
    "expand_dims": expand_dims,
    "fill": fill,
    "fill_like": fill_like,
    "flatten2d": flatten2d,
    "non_zero": non_zero,
    "one_hot": one_hot,
    "pad": pad,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "range_1d": range_1d,
    "reshape": reshape,
    "reshape_like": reshape_like,
    "reverse": reverse,
    "reverse_sequence": reverse_sequence,
    "shape": lambda x: np.array(x.shape, np.int32),
    "sliding_windows": sliding_windows,
    "space_to_batch": space_to_batch,
    "space_to_depth": space_to_depth,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
}
