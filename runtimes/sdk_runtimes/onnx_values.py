"""What is known of a value before a graph runs: its shape, and its content where that may become a shape."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from sdk_runtimes.feeds import Array
from sdk_runtimes.onnx_model import Node
from sdk_runtimes.onnx_schema import DATA_TYPES
from sdk_runtimes.onnx_tensors import SMALL, Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A value of a graph.

    Attributes:
        constant: it depends on constants alone, so an engine may compute it at load.
        shape: None where not known.
        bits: of an element.
        content: its elements, where small and known.
    """

    constant: bool
    shape: Shape | None = None
    bits: int = 32
    content: Array | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes in memory; 0 where the shape is not known."""
        return 0 if self.shape is None else math.prod(self.shape) * self.bits // 8


DYNAMIC = Value(constant=False)
Args = Sequence[Value | None]


def from_tensor(tensor: Tensor, *, constant: bool) -> Value:
    """The value of an initializer, a Constant, or an input of fixed shape."""
    return Value(constant, tensor.shape, tensor.bits, tensor.values)


def from_content(content: Array) -> Value:
    """A known constant."""
    return Value(
        constant=True,
        shape=content.shape,
        bits=content.itemsize * 8,
        content=content if content.size <= SMALL else None,
    )


def attribute(node: Node, name: str, default: Any) -> Any:
    """An attribute's value, or its default."""
    given = node.attributes.get(name)
    return default if given is None or given.value is None else given.value


def compute(node: Node, args: Args) -> list[Array] | None:
    """The outputs of a node that computes on shapes, where all it needs is known and small; else None."""
    if node.op in ("Shape", "Size"):
        shape = _shape_of(node, args)
        return None if shape is None else [shape]
    if any(arg is not None and arg.content is None for arg in args):
        return None
    contents = [None if arg is None else arg.content for arg in args]
    try:
        with np.errstate(all="ignore"):
            result = _evaluate(node, contents)
            results = [np.asarray(item) for item in (result if isinstance(result, list) else [result])]
    # What the engine will say of such a node is the engine's business; its content is not known to us.
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError):
        return None
    return results if all(item.size <= SMALL and item.dtype.kind in "biuf" for item in results) else None


def _evaluate(node: Node, contents: Sequence[Any]) -> Any:
    if node.op in _EVALUATED:
        return _EVALUATED[node.op](*contents)
    return _EVALUATED_WITH_ATTRIBUTES[node.op](node, contents)


def _shape_of(node: Node, args: Args) -> Array | None:
    if not args or args[0] is None or args[0].shape is None:
        return None
    shape = args[0].shape
    if node.op == "Size":
        return np.array(math.prod(shape), np.int64) if math.prod(shape) < 1 << 63 else None
    return np.array(shape[attribute(node, "start", 0) : attribute(node, "end", None)], np.int64)


def _axes(node: Node, contents: Sequence[Any]) -> tuple[int, ...] | None:
    given = (
        contents[1].tolist()
        if len(contents) > 1 and contents[1] is not None
        else attribute(node, "axes", None)
    )
    return None if given is None else tuple(given)


def _reshape(data: Any, shape: Any) -> Array:
    return np.reshape(
        data, [data.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())]
    )


def _cast(node: Node, content: Any) -> Array:
    # The types whose content we read; any other is a KeyError, and the content unknown.
    kinds = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}
    return np.asarray(content.astype(kinds[attribute(node, "to", 0)]))


def _divide(left: Any, right: Any) -> Any:
    # ONNX truncates towards zero, Python floors.
    return np.trunc(left / right).astype(left.dtype) if left.dtype.kind == "i" else left / right


def _slice(data: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Array:
    index = [slice(None)] * data.ndim
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        step = 1 if steps is None else int(steps[number])
        if step < 0:
            raise ValueError("backwards, where the ends mean something else")
        index[number if axes is None else axes[number]] = slice(start, end, step)
    return np.asarray(data[tuple(index)])


def _split(node: Node, data: Any, sizes: Any = None) -> list[Any]:
    axis = attribute(node, "axis", 0)
    given = sizes.tolist() if sizes is not None else attribute(node, "split", None)
    if given is None:
        piece = -(-data.shape[axis] // len(node.outputs))
        return np.split(data, range(piece, data.shape[axis], piece), axis)
    return np.split(data, np.cumsum(given)[:-1], axis)


def _reduced(reduce: Callable[..., Any], node: Node, contents: Sequence[Any]) -> Any:
    return reduce(contents[0], axis=_axes(node, contents), keepdims=bool(attribute(node, "keepdims", 1)))


def _small(shape: Any) -> list[int]:
    sizes: list[int] = shape.tolist()
    if math.prod(sizes) > SMALL:
        raise ValueError("too large to be a shape")
    return sizes


def _filled(node: Node, shape: Any) -> Array:
    value = attribute(node, "value", None)
    return np.full(_small(shape), np.float32(0) if value is None else value.values.reshape(()))


def _range(start: Any, limit: Any, delta: Any) -> Array:
    bounds = start.item(), limit.item(), delta.item()
    _small(np.array([math.ceil((bounds[1] - bounds[0]) / bounds[2])]))
    return np.arange(*bounds).astype(start.dtype)


# operator -> function of the inputs' content
_EVALUATED: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "Identity": lambda x: x,
        "Add": operator.add,
        "Sub": operator.sub,
        "Mul": operator.mul,
        "Div": _divide,
        "Mod": np.mod,  # its sign is the divisor's, as in ONNX; C's `fmod` is for floats only
        "Pow": np.power,
        "Neg": operator.neg,
        "Abs": np.abs,
        "Sign": np.sign,
        "Sqrt": np.sqrt,
        "Exp": np.exp,
        "Log": np.log,
        "Reciprocal": np.reciprocal,
        "Floor": np.floor,
        "Ceil": np.ceil,
        "Round": np.round,
        "Min": lambda *many: np.minimum.reduce(np.broadcast_arrays(*many)),
        "Max": lambda *many: np.maximum.reduce(np.broadcast_arrays(*many)),
        "Equal": operator.eq,
        "Greater": operator.gt,
        "GreaterOrEqual": operator.ge,
        "Less": operator.lt,
        "LessOrEqual": operator.le,
        "And": np.logical_and,
        "Or": np.logical_or,
        "Not": np.logical_not,
        "Where": np.where,
        "Expand": lambda data, shape: data * np.ones(_small(shape), data.dtype),
        "Slice": _slice,
        "Reshape": _reshape,
        "Range": _range,
    }
)
# operator -> function of the node, for its attributes, and the inputs' content
_EVALUATED_WITH_ATTRIBUTES: Mapping[str, Callable[[Node, Sequence[Any]], Any]] = MappingProxyType(
    {
        "Cast": lambda node, c: _cast(node, c[0]),
        "Concat": lambda node, c: np.concatenate(c, axis=attribute(node, "axis", 0)),
        "Gather": lambda node, c: np.take(c[0], c[1], axis=attribute(node, "axis", 0)),
        "Unsqueeze": lambda node, c: np.expand_dims(c[0], _axes(node, c) or ()),
        "Squeeze": lambda node, c: np.squeeze(c[0], _axes(node, c)),
        "Transpose": lambda node, c: np.transpose(c[0], attribute(node, "perm", None)),
        "ReduceProd": lambda node, c: _reduced(np.prod, node, c),
        "ReduceSum": lambda node, c: _reduced(np.sum, node, c),
        "ReduceMax": lambda node, c: _reduced(np.max, node, c),
        "ReduceMin": lambda node, c: _reduced(np.min, node, c),
        "Split": lambda node, c: _split(node, *c),
        "ConstantOfShape": lambda node, c: _filled(node, c[0]),
    }
)


def constant(node: Node) -> Value:
    """The value of a Constant node."""
    for name, kind in (("value_int", np.int64), ("value_ints", np.int64)):
        if (given := attribute(node, name, None)) is not None:
            return from_content(np.array(given, kind))
    tensor = attribute(node, "value", None)
    # A float or a string: never a shape, and no larger than the file.
    return Value(constant=True) if tensor is None else from_tensor(tensor, constant=True)


def filled_bits(node: Node) -> int:
    """Bits of an element of what a ConstantOfShape or a random draw makes."""
    value = attribute(node, "value", None)
    if value is not None:
        return int(value.bits)
    return DATA_TYPES.get(attribute(node, "dtype", 1), DATA_TYPES[1])[0]
