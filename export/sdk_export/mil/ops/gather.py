"""Reading and writing at indices that are data.

Since iOS 17 an index below 0 is undefined on the device. It is refused here, because an evaluator that
counted from the end would hide the fault.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sdk_export.mil.weights import Array

_UPDATES: Mapping[str, Callable[..., None]] = {
    "add": np.add.at,
    "sub": np.subtract.at,
    "mul": np.multiply.at,
    "div": np.true_divide.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def _checked(indices: Array, sizes: Any) -> Array:
    """Indices as int64.

    Raises:
        IndexError: an index outside its axis.
    """
    wide = np.asarray(indices).astype(np.int64)
    if wide.size and (np.any(wide < 0) or np.any(wide >= sizes)):
        raise IndexError(f"indices go from {wide.min()} to {wide.max()}, the axis has {sizes}")
    return wide


def gather(x: Array, indices: Array, axis: Any = 0, batch_dims: Any = 0) -> Array:
    """x[..., indices, ...] at `axis`, row by row over the first `batch_dims` axes."""
    at, batch = int(axis) % x.ndim, int(batch_dims)
    wide = _checked(indices, x.shape[at])
    if batch == 0:
        return np.take(x, wide, axis=at)
    lead = x.shape[:batch]
    rows = x.reshape(-1, *x.shape[batch:])
    picks = wide.reshape(len(rows), *wide.shape[batch:])
    taken = np.stack([np.take(row, pick, axis=at - batch) for row, pick in zip(rows, picks, strict=True)])
    return taken.reshape(*lead, *taken.shape[1:])


def gather_along_axis(x: Array, indices: Array, axis: Any = 0) -> Array:
    """Torch's `gather`: along `axis` the index says which, elsewhere the place does."""
    at = int(axis) % x.ndim
    wide = _checked(indices, x.shape[at])
    places = list(np.ogrid[tuple(slice(size) for size in wide.shape)])
    places[at] = wide
    return np.asarray(x[tuple(places)])


def gather_nd(x: Array, indices: Array, batch_dims: Any = 0) -> Array:
    """The last axis of `indices` holds coordinates into the leading axes of x (after the batch axes)."""
    batch, depth = int(batch_dims), indices.shape[-1]
    wide = _checked(indices, np.array(x.shape[batch : batch + depth]))
    lead = np.ogrid[tuple(slice(size) for size in x.shape[:batch])] if batch else []
    rest = wide.ndim - 1 - batch
    places = [place.reshape(place.shape + (1,) * rest) for place in lead]
    return np.asarray(x[(*places, *np.moveaxis(wide, -1, 0))])


def _updated(data: Array, places: tuple[Any, ...], updates: Array, mode: str) -> Array:
    """A copy of `data` with `updates` put in; equal places add up (or multiply, …) one after the other."""
    result = data.copy()
    if mode == "update":
        result[places] = updates
    else:
        _UPDATES[mode](result, places, updates)
    return result


def scatter(data: Array, indices: Array, updates: Array, axis: Any = 0, mode: str = "add") -> Array:
    """Puts slices at `indices` of one axis."""
    at = int(axis) % data.ndim
    wide = _checked(indices, data.shape[at])
    return _updated(data, (slice(None),) * at + (wide,), updates, mode)


def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: Any = 0, mode: str = "add"
) -> Array:
    """Torch's `scatter`: along `axis` the index says where, elsewhere the place does."""
    at = int(axis) % data.ndim
    wide = _checked(indices, data.shape[at])
    places: list[Any] = list(np.ogrid[tuple(slice(size) for size in wide.shape)])
    places[at] = wide
    return _updated(data, tuple(places), updates, mode)


def scatter_nd(data: Array, indices: Array, updates: Array, mode: str = "add") -> Array:
    """Puts slices at coordinates; the last axis of `indices` holds them."""
    wide = _checked(indices, np.array(data.shape[: indices.shape[-1]]))
    return _updated(data, tuple(np.moveaxis(wide, -1, 0)), updates, mode)


OPS: Mapping[str, Callable[..., Array]] = {
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
}
