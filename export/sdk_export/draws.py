"""Inputs that the gate draws, within what the caller's samples show."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from sdk_export.captured import Arrays, Source
from sdk_runtimes.feeds import Array
from sdk_runtimes.specs import Dim, SymbolRange, TensorSpec

_EDGE = 0.1  # the share of the samples' range that counts as its end
_LARGE = 8.0  # three bits above the samples: inside fp16 for normalised inputs, outside for careless sums
_SIZES_GROW = 2  # the larger size that is tried, in terms of the sample's

Draw = Callable[[Array, tuple[int, ...], np.random.Generator], Array]
"""(sample, shape, generator) to values of the sample's dtype."""


def _normal(sample: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Gaussian with the sample's mean and spread, within its extremes; integers uniform over their range."""
    if not sample.size:
        return np.zeros(shape, sample.dtype)
    if sample.dtype.kind != "f":
        return _uniform(sample, shape, generator)
    known = sample[np.isfinite(sample)]
    if not known.size:
        return np.resize(sample, shape)
    values = generator.normal(known.mean(dtype=np.float64), known.std(dtype=np.float64), shape)
    return np.clip(values, known.min(), known.max()).astype(sample.dtype)


def _uniform(sample: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    low, high = int(sample.min()), int(sample.max())
    return generator.integers(low, high, shape, endpoint=True).astype(sample.dtype)


def _minimum(sample: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """The low end of the samples' range."""
    return _edge(sample, shape, generator, low=True)


def _maximum(sample: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """The high end of the samples' range."""
    return _edge(sample, shape, generator, low=False)


def _edge(sample: Array, shape: tuple[int, ...], generator: np.random.Generator, *, low: bool) -> Array:
    """Integers at one end; floats within a tenth of the range of it.

    A float input that is the same everywhere would be no test but of rounding: a norm of it divides the
    rounding errors of a mean by almost nothing, and PyTorch itself is then off by 1e-4.
    """
    known = sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample
    if not known.size:
        return np.resize(sample, shape) if sample.size else np.zeros(shape, sample.dtype)
    end, other = (known.min(), known.max()) if low else (known.max(), known.min())
    if sample.dtype.kind != "f":
        return np.full(shape, end, sample.dtype)
    reach = _EDGE * generator.random(shape)
    return (float(end) * (1 - reach) + float(other) * reach).astype(sample.dtype)


def _zeros(sample: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Zeros for floats; an integer zero may be outside the range (a class id from 1)."""
    return np.zeros(shape, sample.dtype) if sample.dtype.kind == "f" else _normal(sample, shape, generator)


def _large(sample: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    values = _normal(sample, shape, generator)
    return values * np.asarray(_LARGE, values.dtype) if values.dtype.kind == "f" else values


_DRAWS: Mapping[str, Draw] = MappingProxyType(
    {"normal": _normal, "zeros": _zeros, "min": _minimum, "max": _maximum, "large": _large}
)
DRAWS = tuple(_DRAWS)


def draw_feeds(source: Source, draws: Sequence[str], seed: int) -> Iterator[tuple[str, Arrays]]:
    """Labelled inputs: every draw at the sample's sizes, then "normal" at other sizes of dynamic axes.

    The smallest sizes come first: engines have got a cache wrong after a first run at length 1.

    Args:
        source: whose samples and shapes count.
        draws: labels of `DRAWS`.
        seed: of the generator.
    """
    sizes = _sizes(source)
    tried = {"smallest": _smallest(source, sizes), "larger": _larger(source, sizes)}
    for label, wanted in tried.items():
        if wanted != sizes:
            yield f"normal at the {label} sizes", _feeds(source, _normal, wanted, seed)
    for label in draws:
        yield label, _feeds(source, _DRAWS[label], sizes, seed)


def _feeds(source: Source, draw: Draw, sizes: Mapping[str, int], seed: int) -> Arrays:
    feeds = {}
    for i, spec in enumerate(source.inputs):
        sample = source.samples[spec.name]
        shape = concrete_shape(spec, sizes) if sizes else sample.shape
        feeds[spec.name] = np.asarray(draw(sample, shape, np.random.default_rng([seed, i])))
    return feeds


def _sizes(source: Source) -> dict[str, int]:
    """The sizes that symbols have in the samples."""
    found: dict[str, int] = {}
    for spec in source.inputs:
        for dim, size in zip(spec.shape, source.samples[spec.name].shape, strict=True):
            if isinstance(dim, str) and dim.isidentifier():
                found.setdefault(dim, size)
    return found


def _smallest(source: Source, sizes: Mapping[str, int]) -> dict[str, int]:
    ranges = {item.symbol: item for item in source.symbols}
    return {symbol: max(_range(ranges, symbol, size).minimum, 1) for symbol, size in sizes.items()}


def _larger(source: Source, sizes: Mapping[str, int]) -> dict[str, int]:
    """Twice the sample and one more, so that a power of two is left, within the range and its steps."""
    ranges = {item.symbol: item for item in source.symbols}
    return {symbol: _grown(_range(ranges, symbol, size), size) for symbol, size in sizes.items()}


def _grown(bounds: SymbolRange, size: int) -> int:
    wanted = min(bounds.maximum, _SIZES_GROW * size + 1)
    return wanted - (wanted - bounds.minimum) % bounds.step


def _range(ranges: Mapping[str, SymbolRange], symbol: str, size: int) -> SymbolRange:
    return ranges.get(symbol, SymbolRange(symbol, size, size))


def concrete_shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """A shape with every symbol and expression replaced by its size."""
    return tuple(_size(dim, sizes) for dim in spec.shape)


def _size(dim: Dim, sizes: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    if dim in sizes:
        return sizes[dim]
    import sympy  # type: ignore[import-untyped]  # ships no types; torch brings it

    return int(sympy.sympify(dim).subs(dict(sizes)))
