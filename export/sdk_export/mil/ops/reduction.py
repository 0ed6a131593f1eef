"""Reductions over axes (all of them where none are given), sums along an axis, and orders."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sdk_export.mil.ops.arguments import axes_of
from sdk_export.mil.weights import Array


def _reduction(function: Callable[..., Any]) -> Callable[..., Array]:
    """MIL's signature around numpy's."""

    def apply(x: Array, axes: Array | None = None, keep_dims: Any = False) -> Array:
        return np.asarray(function(x, axis=axes_of(axes), keepdims=bool(keep_dims)))

    return apply


def _log_sum_exp(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    """log(sum(exp(x))), shifted by the maximum so that it does not overflow."""
    top = x.max(axis=axis, keepdims=True)
    summed = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return np.asarray(summed if keepdims else summed.squeeze(axis))


def _arg(function: Callable[..., Any]) -> Callable[..., Array]:
    """Index of an extreme element along an axis, the first of equal ones."""

    def apply(x: Array, axis: Any = -1, keep_dims: Any = False, output_dtype: str = "int32") -> Array:
        del output_dtype  # the output's declared type says it
        return np.asarray(function(x, axis=int(axis), keepdims=bool(keep_dims)))

    return apply


def cumsum(x: Array, axis: Any = 0, exclusive: Any = False, reverse: Any = False) -> Array:
    """Running sum; `exclusive` leaves the element itself out, `reverse` runs from the end."""
    along_axis = np.flip(x, int(axis)) if bool(reverse) else x
    summed = np.cumsum(along_axis, axis=int(axis), dtype=x.dtype)
    if bool(exclusive):
        summed = summed - along_axis
    return np.flip(summed, int(axis)) if bool(reverse) else summed


def _order(x: Array, axis: int, ascending: bool) -> Array:
    """Indices that sort, the first of equal elements first; integers are widened so that -x exists."""
    wide = x.astype(np.int64) if x.dtype.kind in "iu" else x
    return np.argsort(wide if ascending else -wide, axis=axis, kind="stable")


def argsort(x: Array, axis: Any = -1, ascending: Any = False) -> Array:
    """Indices that sort along an axis, largest first unless `ascending`."""
    return _order(x, int(axis), bool(ascending))


def topk(
    x: Array,
    k: Any = 1,
    axis: Any = -1,
    ascending: Any = False,
    sort: Any = True,
    return_indices: Any = True,
    output_indices_dtype: str = "int32",
) -> tuple[Array, ...]:
    """The k largest (with `ascending`, smallest) elements along an axis, and where they were.

    Unsorted results may come in any order, so ours are sorted too. k = -1 takes all.
    """
    del sort, output_indices_dtype
    count = x.shape[int(axis)] if int(k) < 0 else int(k)
    order = np.take(_order(x, int(axis), bool(ascending)), np.arange(count), axis=int(axis))
    values = np.take_along_axis(x, order, axis=int(axis))
    return (values, order) if bool(return_indices) else (values,)


OPS: Mapping[str, Callable[..., Array | tuple[Array, ...]]] = {
    "argsort": argsort,
    "cumsum": cumsum,
    "reduce_argmax": _arg(np.argmax),
    "reduce_argmin": _arg(np.argmin),
    "reduce_l1_norm": _reduction(lambda x, **over: np.abs(x).sum(**over)),
    "reduce_l2_norm": _reduction(lambda x, **over: np.sqrt(np.square(x).sum(**over))),
    "reduce_log_sum": _reduction(lambda x, **over: np.log(x.sum(**over))),
    "reduce_log_sum_exp": _reduction(_log_sum_exp),
    "reduce_max": _reduction(np.max),
    "reduce_mean": _reduction(np.mean),
    "reduce_min": _reduction(np.min),
    "reduce_prod": _reduction(np.prod),
    "reduce_sum": _reduction(np.sum),
    "reduce_sum_square": _reduction(lambda x, **over: np.square(x).sum(**over)),
    "topk": topk,
}
