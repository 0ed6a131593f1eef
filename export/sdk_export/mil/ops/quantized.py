"""Compressed constants (`constexpr_*`), and quantization of activations."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sdk_export.mil.ops.arguments import along
from sdk_export.mil.weights import Array, unpacked


def _per_axis(values: Any, axis: Any, rank: int) -> Array:
    """A scale or zero point: a scalar, or a vector along one axis."""
    held = np.asarray(values)
    return held if held.ndim == 0 or axis is None else along(held, int(axis), rank)


def constexpr_affine_dequantize(quantized_data: Array, zero_point: Any, scale: Any, axis: Any) -> Array:
    """Scale * (data - zero_point), both along one axis."""
    shifted = quantized_data.astype(np.float32) - _per_axis(zero_point, axis, quantized_data.ndim).astype(
        np.float32
    )
    return np.asarray(shifted * _per_axis(scale, axis, quantized_data.ndim))


def _blown_up(values: Array, shape: tuple[int, ...]) -> Array:
    """Repeats every element to fill its block of a tensor of that shape."""
    for axis, (size, has) in enumerate(zip(shape, values.shape, strict=True)):
        values = np.repeat(values, size // has, axis)
    return values


def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """Scale * (data - offset), one scale and offset a block; block = data.shape / scale.shape."""
    wide = data.astype(np.float32)
    if offset is not None:
        wide = wide - _blown_up(offset, data.shape).astype(np.float32)
    return np.asarray(wide * _blown_up(scale, data.shape))


def constexpr_lut_to_dense(
    indices: Array, lut: Array, vector_axis: Any = None, shape: Array | None = None
) -> Array:
    """Looks indices up in the table of their block.

    iOS 18: `lut` is (blocks of every axis…, entries, vector); a vector of several elements is laid along
    `vector_axis`. iOS 16: `lut` is one flat table, `shape` the result's, and `indices` are packed into bytes.
    """
    if shape is not None:
        wanted = [int(size) for size in shape]
        bits = (len(lut) - 1).bit_length()
        return np.asarray(lut[unpacked(indices, bits, math.prod(wanted))]).reshape(wanted)
    *blocks, _, vector = lut.shape
    places = np.ogrid[tuple(slice(size) for size in indices.shape)]
    owner = [
        place // (size // count) for place, size, count in zip(places, indices.shape, blocks, strict=True)
    ]
    found = lut[(*owner, indices.astype(np.int64))]
    if vector == 1:
        return np.asarray(found[..., 0])
    axis = int(vector_axis) % indices.ndim
    laid = np.moveaxis(found, -1, axis + 1)
    wanted = [size * vector if i == axis else size for i, size in enumerate(indices.shape)]
    return np.asarray(laid.reshape(wanted))


def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None = None) -> Array:
    """Puts values where the mask has ones, in order; zeros elsewhere. iOS 16 packs the mask into bytes."""
    if shape is not None:
        wanted = [int(size) for size in shape]
        mask = np.unpackbits(mask, bitorder="little", count=int(np.prod(wanted))).reshape(wanted)
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


def constexpr_lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: Any = None
) -> tuple[Array, Array]:
    """A mask and looked-up values from a mask and indices."""
    dense = constexpr_lut_to_dense(
        constexpr_sparse_to_dense(indices_nonzero_data, indices_mask), lut, vector_axis
    )
    mask = indices_mask if lut.shape[-1] == 1 else np.repeat(indices_mask, lut.shape[-1], int(vector_axis))
    return mask, dense[mask != 0]


def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """A mask and dequantized values from a mask and quantized ones."""
    dense = constexpr_blockwise_shift_scale(constexpr_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def constexpr_cast(source_val: Array, output_dtype: str) -> Array:
    """Stored in fp16, used in fp32; the output's declared type does it."""
    del output_dtype
    return source_val


def dequantize(input: Array, scale: Any, zero_point: Any = 0, axis: Any = None) -> Array:  # noqa: A002  # MIL's name
    """Scale * (input - zero_point)."""
    shifted = input.astype(np.float32) - _per_axis(zero_point, axis, input.ndim).astype(np.float32)
    return np.asarray(shifted * _per_axis(scale, axis, input.ndim))


def quantize(input: Array, scale: Any, output_dtype: str, zero_point: Any = 0, axis: Any = None) -> Array:  # noqa: A002  # MIL's name
    """clip(round(input / scale) + zero_point), to int8 or uint8."""
    scaled = np.rint(input / _per_axis(scale, axis, input.ndim)) + _per_axis(zero_point, axis, input.ndim)
    limits = np.iinfo(output_dtype)
    return np.asarray(np.clip(scaled, limits.min, limits.max).astype(output_dtype))


OPS: Mapping[str, Callable[..., Array | tuple[Array, ...]]] = {
    "constexpr_affine_dequantize": constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": constexpr_blockwise_shift_scale,
    "constexpr_cast": constexpr_cast,
    "constexpr_lut_to_dense": constexpr_lut_to_dense,
    "constexpr_lut_to_sparse": constexpr_lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": constexpr_sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": constexpr_sparse_to_dense,
    "dequantize": dequantize,
    "quantize": quantize,
}
