"""Dynamic dimensions: from what the caller writes to what torch.export takes, and back to our symbols."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sdk_export.names import Leaf, input_leaves
from sdk_export.samples import Samples
from sdk_runtimes.errors import ArgumentError
from sdk_runtimes.specs import Dim, SymbolRange

DEFAULT_MAXIMUM = 1024
"""Upper bound of a symbol whose range has none: engines plan memory and TensorRT profiles by it."""

Axes = dict[int, Any]  # axis -> torch.export.Dim or a hint such as Dim.AUTO
FlatDims = dict[str, Axes]  # flat input name -> its dynamic axes


@dataclass(frozen=True)
class Bounds:
    """A named axis as the caller wrote it: "batch" or ("batch", 1, 8)."""

    symbol: str
    minimum: int
    maximum: int


def flat_dims(model: nn.Module, samples: Samples, dynamic_shapes: object) -> FlatDims:
    """Dynamic axes by flat input name.

    Args:
        model: whose `forward` names the inputs.
        samples: the inputs themselves.
        dynamic_shapes: torch.export's nested form, or a dict by flat name; an axis is a
            `torch.export.Dim`, a name, or `(name, minimum, maximum)`.

    Raises:
        ArgumentError: a name or an axis that is not there, or a malformed axis.
    """
    if dynamic_shapes is None:
        return {}
    leaves = dict(input_leaves(model, samples))
    parameters = list(inspect.signature(model.forward).parameters)
    if isinstance(dynamic_shapes, Mapping):
        by_name = dict(dynamic_shapes)
    elif isinstance(dynamic_shapes, tuple | list):
        by_name = dict(zip(parameters, dynamic_shapes, strict=False))
    else:
        raise ArgumentError(
            f"dynamic_shapes is a {type(dynamic_shapes).__name__}",
            why="it maps input names to their dynamic axes",
            fix="dynamic_shapes={'x': {0: ('batch', 1, 8)}}",
        )
    flat: FlatDims = {}
    for name, spec in by_name.items():
        for leaf_name, axes in _descend(str(name), spec, leaves):
            flat[leaf_name] = _axes(leaf_name, axes, leaves)
    shared: dict[str, Any] = {}
    return {
        name: {axis: _as_dim(d, shared) for axis, d in axes.items()} for name, axes in flat.items() if axes
    }


def _descend(name: str, spec: object, leaves: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Pairs of flat leaf name and axis specification below `name`."""
    if spec is None:
        return []
    if name in leaves:
        return [(name, spec)]
    if not any(leaf.startswith(f"{name}.") for leaf in leaves):
        raise ArgumentError(
            f"dynamic_shapes names {name!r}",
            why=f"the inputs are {sorted(leaves)}",
            fix="use one of these names",
        )
    items: list[tuple[Any, Any]]
    if isinstance(spec, Mapping):
        items = list(spec.items())
    elif isinstance(spec, tuple | list):
        items = list(enumerate(spec))
    else:
        raise ArgumentError(f"dynamic_shapes[{name!r}] is {spec!r}", why="this input is nested")
    return [pair for key, below in items for pair in _descend(f"{name}.{key}", below, leaves)]


def _axes(name: str, spec: object, leaves: Mapping[str, Any]) -> Axes:
    rank = leaves[name].ndim if isinstance(leaves[name], torch.Tensor) else 0
    if isinstance(spec, tuple | list):
        spec = dict(enumerate(spec))
    if not isinstance(spec, Mapping) or not all(isinstance(axis, int) for axis in spec):
        raise ArgumentError(
            f"dynamic_shapes[{name!r}] is {spec!r}",
            why="the dynamic axes of a tensor are a dict from axis to dimension",
            fix=f"dynamic_shapes={{{name!r}: {{0: ('batch', 1, 8)}}}}",
        )
    beyond = [axis for axis in spec if not 0 <= axis < rank]
    if beyond:
        raise ArgumentError(f"dynamic_shapes[{name!r}] has axis {beyond[0]}", why=f"{name!r} has {rank} axes")
    return {axis: dim for axis, dim in spec.items() if dim is not None and not isinstance(dim, int)}


def _as_dim(dim: Any, shared: dict[str, Any]) -> Any:
    """A torch Dim for a name or a triple, the same object for the same name; torch's own pass through."""
    if not isinstance(dim, str | tuple | list):
        return dim
    bounds = read_bounds(dim)
    known = shared.setdefault(
        bounds.symbol, torch.export.Dim(bounds.symbol, min=bounds.minimum, max=bounds.maximum)
    )
    if (known.min, known.max) != (bounds.minimum, bounds.maximum):
        raise ArgumentError(
            f"the dimension {bounds.symbol!r} is {known.min} to {known.max} and "
            f"{bounds.minimum} to {bounds.maximum}",
            why="axes of one name are one size",
            fix="give it the same range everywhere, or the axes different names",
        )
    return known


def read_bounds(given: object) -> Bounds:
    """A name or a triple.

    Raises:
        ArgumentError: it is neither, or the range is empty.
    """
    if isinstance(given, str):
        given = (given, 1, DEFAULT_MAXIMUM)
    match given:
        case [str(symbol), int(minimum), int(maximum)] if symbol.isidentifier() and 0 <= minimum < maximum:
            return Bounds(symbol, minimum, maximum)
    raise ArgumentError(
        f"the dimension {given!r} cannot be read",
        why="a dynamic dimension is (name, minimum, maximum) with minimum < maximum",
        fix="('batch', 1, 8)",
    )


def nested_dims(model: nn.Module, samples: Samples, flat: FlatDims) -> dict[str, Any] | None:
    """torch.export's nested form of `flat`; None when nothing is dynamic."""
    if not flat:
        return None
    bound = inspect.signature(model.forward).bind(*samples.args, **samples.kwargs).arguments
    flattened = input_leaves(model, samples)
    names = iter(flattened)
    nested: dict[str, Any] = {}
    for parameter, value in _top_level(model, bound):
        leaves, structure = pytree.tree_flatten(value)
        specs = [flat.get(next(names)[0]) for _ in leaves]
        nested[parameter] = pytree.tree_unflatten(specs, structure)
    return nested


def _top_level(model: nn.Module, bound: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Parameters with their values; `**kwargs` spreads into its own names as torch.export wants it."""
    rows: list[tuple[str, Any]] = []
    parameters = inspect.signature(model.forward).parameters
    for name, value in bound.items():
        if parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            rows += list(value.items())
        else:
            rows.append((name, value))
    return rows


def traceable(samples: Samples, leaves: Sequence[Leaf], flat: FlatDims) -> Samples:
    """Samples whose dynamic axes are at least 2 long: torch.export takes sizes 0 and 1 for constants."""
    grown = [_grown(value, flat[name]) if name in flat else value for name, value in leaves]
    _, structure = pytree.tree_flatten((samples.args, samples.kwargs))
    args, kwargs = pytree.tree_unflatten(grown, structure)
    return Samples(args, kwargs)


def _grown(value: torch.Tensor, axes: Axes) -> torch.Tensor:
    lengths = [max(size, 2) if axis in axes else size for axis, size in enumerate(value.shape)]
    if lengths == list(value.shape):
        return value
    return value.expand(lengths).contiguous() if value.numel() else value.new_zeros(lengths)


class Symbols:
    """torch's symbols (s77) under the caller's names ("batch").

    An input axis that is a multiple of a symbol (torch's `4 * Dim("rows")`) is a symbol of its own, with
    steps; what depends on the inner one is told in terms of it.
    """

    def __init__(self) -> None:
        self._axes: dict[Any, str] = {}  # size of an input axis, as torch has it -> name
        self._inner: dict[Any, Any] = {}  # torch's symbol -> expression over our names

    def learn(self, name: str, value: torch.Tensor, axes: Axes) -> None:
        """Notes the symbols on the dynamic axes of one traced input."""
        sizes: list[Any] = list(value.shape)  # a traced size is an int or a SymInt, which torch types as int
        for axis, size in enumerate(sizes):
            if isinstance(size, int) or size.node.expr in self._axes:
                continue
            given = str(getattr(axes.get(axis), "__name__", ""))
            self._axes[size.node.expr] = given if given.isidentifier() else f"{name.replace('.', '_')}_{axis}"
            self._resolve(size.node.expr)

    def _resolve(self, expression: Any) -> None:
        """Solves `expression = name` for the one torch symbol in it; a plain symbol is its own solution."""
        import sympy  # type: ignore[import-untyped]  # ships no types; torch brings it

        (symbol, *more) = sorted(expression.free_symbols, key=str)
        if not more and (expression.is_symbol or symbol not in self._inner):
            named = sympy.Symbol(self._axes[expression])
            self._inner[symbol] = sympy.solve(expression - named, symbol)[0]

    def shape(self, value: torch.Tensor) -> tuple[Dim, ...]:
        """A traced shape with ints and our names."""
        sizes: list[Any] = list(value.shape)
        return tuple(size if isinstance(size, int) else self._text(size.node.expr) for size in sizes)

    def _text(self, expression: Any) -> Dim:
        if expression in self._axes:
            return self._axes[expression]
        named = expression.subs(self._inner)
        return int(named) if named.is_Integer else str(named)

    def ranges(self, constraints: Mapping[Any, Any]) -> tuple[SymbolRange, ...]:
        """The bounds of every named symbol; an open end becomes `DEFAULT_MAXIMUM`."""
        return tuple(_range(name, expression, constraints) for expression, name in self._axes.items())


def _range(name: str, expression: Any, constraints: Mapping[Any, Any]) -> SymbolRange:
    ends = {symbol: _bounds(constraints.get(symbol)) for symbol in expression.free_symbols}
    lowest = {symbol: lower for symbol, (lower, _) in ends.items()}
    first = int(expression.subs(lowest))
    last = int(expression.subs({symbol: upper for symbol, (_, upper) in ends.items()}))
    # A sum of several symbols takes every size in between.
    steps = [int(expression.subs(lowest | {symbol: lowest[symbol] + 1})) - first for symbol in ends]
    return SymbolRange(name, first, max(last, first), steps[0] if len(steps) == 1 else 1)


def _bounds(given: Any) -> tuple[int, int]:
    # torch writes "no bound" as an infinity of its own or as the largest index
    lower = int(given.lower) if given is not None else 1
    upper = int(given.upper) if given is not None and given.upper < 2**31 else DEFAULT_MAXIMUM
    return lower, max(upper, lower)
