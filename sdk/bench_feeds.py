"""Inputs for measuring: the bundle's own goldens, stretched to the sizes asked for."""

from collections.abc import Mapping, Sequence

import numpy as np

from sdk.units import range_text
from sdk_runtimes.bundle import Bundle
from sdk_runtimes.errors import ArgumentError, UnknownChoiceError
from sdk_runtimes.feeds import Array
from sdk_runtimes.goldens import read_goldens
from sdk_runtimes.specs import DTYPES, ProgramSpec, TensorSpec


def bench_feeds(bundle: Bundle, spec: ProgramSpec, sizes: Mapping[str, int]) -> dict[str, Array]:
    """One array an input.

    Goldens are inputs that the model takes: token ids within the vocabulary, masks that mask. They are
    repeated along the symbolic axes where a size was asked for. A bundle without goldens gets noise.

    Args:
        bundle: where the goldens lie.
        spec: the program to feed.
        sizes: symbol -> size, for symbols that shall differ from the golden (or from their minimum).

    Raises:
        UnknownChoiceError: a symbol that the program does not have.
        ArgumentError: a size out of the symbol's range.
    """
    check_sizes(spec, sizes)
    case = _golden(bundle, spec)
    if case is None:
        return {item.name: _noise(item, _full_sizes(spec, sizes)) for item in spec.inputs}
    return {item.name: stretch(case[item.name], item, sizes) for item in spec.inputs}


def sizes_of(inputs: Sequence[TensorSpec], feeds: Mapping[str, Array]) -> dict[str, int]:
    """The size that every symbol has in some feeds."""
    return {
        dim: size
        for item in inputs
        for dim, size in zip(item.shape, feeds[item.name].shape, strict=True)
        if isinstance(dim, str)
    }


def check_sizes(spec: ProgramSpec, sizes: Mapping[str, int]) -> None:
    """Refuses symbols that are not there and sizes that they cannot have."""
    ranges = {item.symbol: item for item in spec.symbols}
    for symbol, size in sizes.items():
        if symbol not in ranges:
            raise UnknownChoiceError("symbol", symbol, ranges)
        bounds = ranges[symbol]
        if size not in range(bounds.minimum, bounds.maximum + 1, bounds.step):
            raise ArgumentError(
                f"size {symbol}={size} does not fit {spec.id!r}",
                why=f"{symbol!r} may be {range_text(bounds)}",
                fix=f"pass a size from {range_text(bounds)}",
            )


def stretch(array: Array, item: TensorSpec, sizes: Mapping[str, int]) -> Array:
    """Repeats or cuts an array along the axes whose symbol has a size."""
    for axis, dim in enumerate(item.shape):
        if not isinstance(dim, str) or dim not in sizes:
            continue
        if array.shape[axis]:
            array = np.take(array, np.arange(sizes[dim]) % array.shape[axis], axis=axis)
        else:  # an empty cache has nothing to repeat
            array = np.zeros((*array.shape[:axis], sizes[dim], *array.shape[axis + 1 :]), array.dtype)
    return np.ascontiguousarray(array).reshape(array.shape)  # 0-d stays 0-d


def _golden(bundle: Bundle, spec: ProgramSpec) -> dict[str, Array] | None:
    found = next((item for item in bundle.manifest.goldens if item.program == spec.name), None)
    if found is None or not found.cases:
        return None
    return read_goldens(bundle.file(found.file))[0][0]


def _full_sizes(spec: ProgramSpec, sizes: Mapping[str, int]) -> dict[str, int]:
    return {item.symbol: max(item.minimum, 1) for item in spec.symbols} | dict(sizes)


def _noise(item: TensorSpec, sizes: Mapping[str, int]) -> Array:
    """Standard normal floats; ones for the rest, the value that most integer inputs can take."""
    shape = [dim if isinstance(dim, int) else sizes[dim] for dim in item.shape]
    dtype = DTYPES[item.dtype]
    if dtype.kind != "f":
        return np.ones(shape, dtype)
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)
