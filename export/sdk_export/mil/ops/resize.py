"""Resampling of images.

MIL describes every mode by the points of the input at which the output is sampled
(`resize_bilinear`, notes). Linear interpolation between neighbours is a small matrix for each axis.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own spelling

from sdk_export.mil.ops.arguments import array, ints, tensor
from sdk_export.mil.weights import Array


def _strict_corners(size: int, count: int) -> Array:
    return np.arange(count) * ((size - 1) / (count - 1) if count > 1 else 0.0)


def _corners(size: int, count: int) -> Array:
    return _strict_corners(size, count) if count > 1 else np.array([(size - 1) / 2])


def _default(size: int, count: int) -> Array:
    return np.arange(count) * (size / count)


def _offset_corners(size: int, count: int) -> Array:
    delta = max(1, size - 1) / count
    return 0.5 * delta + np.arange(count) * delta


def _centres(size: int, count: int) -> Array:
    return (np.arange(count) + 0.5) * (size / count) - 0.5


# sampling_mode -> points of an axis of `size` at which `count` outputs are taken
POINTS: Mapping[str, Callable[[int, int], Array]] = {
    "STRICT_ALIGN_CORNERS": _strict_corners,
    "ALIGN_CORNERS": _corners,
    "DEFAULT": _default,
    "OFFSET_CORNERS": _offset_corners,
    "UNALIGN_CORNERS": _centres,
}


def _interpolation(size: int, count: int, sampling_mode: str) -> Array:
    """The (count, size) matrix that interpolates an axis linearly."""
    points = np.clip(POINTS[sampling_mode](size, count), 0, size - 1)
    lower = np.floor(points).astype(np.int64)
    upper = np.minimum(lower + 1, size - 1)
    share = points - lower
    matrix = np.zeros((count, size))
    np.add.at(matrix, (np.arange(count), lower), 1 - share)
    np.add.at(matrix, (np.arange(count), upper), share)
    return matrix.astype(np.float32)


def _nearest(size: int, count: int, sampling_mode: str) -> Array:
    """The index taken by every output: the point cut down (DEFAULT), or rounded where points are centred."""
    points = POINTS[sampling_mode](size, count)
    rounded = np.floor(points + (0.0 if sampling_mode == "DEFAULT" else 0.5) + 1e-9)
    return np.clip(rounded.astype(np.int64), 0, size - 1)


def _linear(x: Array, sizes: list[int], sampling_mode: str) -> Array:
    """Interpolates the last axes to these sizes."""
    for axis, count in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        matrix = _interpolation(x.shape[axis], count, sampling_mode)
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix.T, -1, axis)
    return x


def _nearest_resize(x: Array, sizes: list[int], sampling_mode: str) -> Array:
    """Picks elements of the last axes."""
    for axis, count in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        x = np.take(x, _nearest(x.shape[axis], count, sampling_mode), axis=axis)
    return x


def resize_bilinear(
    x: Array, target_size_height: Any = 1, target_size_width: Any = 1, sampling_mode: str = "DEFAULT"
) -> Array:
    """Last two axes to a size, linearly."""
    return _linear(x, [int(target_size_height), int(target_size_width)], sampling_mode)


def resize_nearest_neighbor(x: Array, target_size_height: Any, target_size_width: Any) -> Array:
    """Last two axes to a size, taking floor(i * size / target)."""
    return _nearest_resize(x, [int(target_size_height), int(target_size_width)], "DEFAULT")


def _scaled(x: Array, height: Any, width: Any) -> list[int]:
    return [math.floor(x.shape[-2] * float(height)), math.floor(x.shape[-1] * float(width))]


def upsample_nearest_neighbor(x: Array, scale_factor_height: Any = 1, scale_factor_width: Any = 1) -> Array:
    """Last two axes by factors, nearest."""
    return _nearest_resize(x, _scaled(x, scale_factor_height, scale_factor_width), "DEFAULT")


def upsample_bilinear(
    x: Array,
    scale_factor_height: Any = 1,
    scale_factor_width: Any = 1,
    align_corners: Any = True,
    half_pixel_centers: Any = None,
) -> Array:
    """Last two axes by factors, linearly; the scale is recomputed from the sizes."""
    centred = not bool(align_corners) if half_pixel_centers is None else bool(half_pixel_centers)
    mode = "STRICT_ALIGN_CORNERS" if bool(align_corners) else "UNALIGN_CORNERS" if centred else "DEFAULT"
    return _linear(x, _scaled(x, scale_factor_height, scale_factor_width), mode)


def resize(
    x: Array,
    shape: Array,
    resized_dims: Any,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Array:
    """The last `resized_dims` axes to the last sizes of `shape`; 0 keeps x's size."""
    count = int(resized_dims)
    wanted = ints(shape)[len(ints(shape)) - count :]
    sizes = [size or x.shape[x.ndim - count + i] for i, size in enumerate(wanted)]
    return (_linear if interpolation_mode == "LINEAR" else _nearest_resize)(x, sizes, sampling_mode)


def _pixels(coordinates: torch.Tensor, sizes: torch.Tensor, mode: str, align_corners: bool) -> torch.Tensor:
    """Coordinates (x, y) in pixels, 0 at the first pixel's centre."""
    if mode == "unnormalized":
        return coordinates
    share = coordinates if mode == "normalized_zero_to_one" else (coordinates + 1) / 2
    return share * (sizes - 1) if align_corners else share * sizes - 0.5


_TORCH_PADDING = {
    "constant": "zeros",
    "border": "border",
    "reflection": "reflection",
    "symmetric": "reflection",
}


def resample(
    x: Array,
    coordinates: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Any,
    coordinates_mode: str,
    align_corners: Any,
) -> Array:
    """Samples images at points (B, H, W, 2) given as (x, y), as torch's `grid_sample`.

    "reflection" mirrors at the centres of the border pixels, "symmetric" at their outer edges: in torch
    the same padding with and without `align_corners`.
    """
    image, points = tensor(x), tensor(np.asarray(coordinates, np.float32))
    sizes = torch.tensor([x.shape[-1], x.shape[-2]], dtype=torch.float32)
    pixels = _pixels(points, sizes, coordinates_mode, bool(align_corners))
    corners = padding_mode != "symmetric"
    grid = pixels * 2 / (sizes - 1) - 1 if corners else (pixels + 0.5) * 2 / sizes - 1
    shift = float(padding_value) if padding_mode == "constant" else 0.0
    sampled = F.grid_sample(
        image - shift,
        grid,
        mode=sampling_mode,
        padding_mode=_TORCH_PADDING[padding_mode],
        align_corners=corners,
    )
    return array(sampled + shift)


def affine(
    x: Array,
    transform_matrix: Array,
    output_height: Any,
    output_width: Any,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Any,
    coordinates_mode: str,
    align_corners: Any,
) -> Array:
    """Resamples at an affine image of the regular grid; one (2, 3) matrix an image or one for all."""
    matrix = tensor(np.broadcast_to(transform_matrix.reshape(-1, 2, 3), (x.shape[0], 2, 3)).copy())
    size = [x.shape[0], 1, int(output_height), int(output_width)]
    grid = F.affine_grid(matrix, size, align_corners=bool(align_corners))
    return resample(
        x, array(grid), sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners
    )


OPS: Mapping[str, Callable[..., Array]] = {
    "affine": affine,
    "resample": resample,
    "resize": resize,
    "resize_bilinear": resize_bilinear,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
