"""How large the tensors become that operators make from a shape, a count or a factor.

A file of 85 bytes can ask for gigabytes: `ConstantOfShape`, `Expand`, `Tile` … of a constant. Each rule here
gives the output's shape. A rule that needs a value which is constant, but which `onnx_values` cannot compute,
raises `Unresolved`: an engine that folds constants would compute it, so not knowing is not safe.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from sdk_runtimes.onnx_model import Node
from sdk_runtimes.onnx_values import Args, Shape, Value, attribute


class Unresolved(Exception):  # noqa: N818 -- no error: it never leaves the graph check
    """A size depends on constants in a way that is not followed."""


def grown_shape(node: Node, args: Args) -> Shape | None:
    """The shape of a node's first output; None where it depends on what is fed, or the operator has no rule.

    Raises:
        Unresolved: it depends on constants that could not be followed.
    """
    rule = _RULES.get(node.op)
    if rule is None:
        return None
    try:
        return rule(node, args)
    # Such a node is invalid: the engine refuses it by itself.
    except (IndexError, ValueError, TypeError, ZeroDivisionError, OverflowError):
        return None


def _numbers(args: Args, index: int) -> list[float] | None:
    value = args[index] if index < len(args) else None
    if value is None:
        return None
    if value.content is None:
        if value.constant:
            raise Unresolved
        return None
    return [
        float(item) if isinstance(item, float) else int(item) for item in value.content.reshape(-1).tolist()
    ]


def _base(args: Args) -> Shape | None:
    value = args[0] if args else None
    if value is not None and value.shape is None and value.constant:
        raise Unresolved
    return None if value is None else value.shape


def _sizes(*indices: int) -> Callable[[Node, Args], Shape | None]:
    """Inputs that hold the sizes themselves."""

    def rule(_: Node, args: Args) -> Shape | None:
        numbers = [_numbers(args, index) for index in indices]
        if any(item is None for item in numbers):
            return None
        return tuple(abs(int(size)) for item in numbers if item is not None for size in item)

    return rule


def _expand(node: Node, args: Args) -> Shape | None:
    target, base = _sizes(1)(node, args), args[0].shape if args and args[0] is not None else None
    if target is None or base is None:
        return target
    return tuple(np.broadcast_shapes(target, base))


def _scaled(base: Shape | None, factors: list[float] | None) -> Shape | None:
    if factors is None:
        return None
    sizes = [1] * len(factors) if base is None else base
    # Halves rounded up: an upper bound of what any rounding gives.
    return tuple(math.ceil(size * abs(factor)) for size, factor in zip(sizes, factors, strict=True))


def _tile(_: Node, args: Args) -> Shape | None:
    repeats = _numbers(args, 1)
    return None if repeats is None else _scaled(_base(args), repeats)


def _range(_: Node, args: Args) -> Shape | None:
    bounds = [_numbers(args, index) for index in range(3)]
    if any(item is None for item in bounds):
        return None
    start, limit, delta = (item[0] for item in bounds if item is not None)
    return (max(0, math.ceil((limit - start) / delta)),)


def _one_hot(_: Node, args: Args) -> Shape | None:
    depth = _numbers(args, 1)
    base = args[0].shape if args[0] is not None else None
    return None if depth is None else (*(base or ()), abs(int(depth[0])))


def _pad(node: Node, args: Args) -> Shape | None:
    given = attribute(node, "pads", None) or _numbers(args, 1)
    if given is None:
        return None
    pads = [int(item) for item in given]
    half = len(pads) // 2
    added = [before + after for before, after in zip(pads[:half], pads[half:], strict=True)]
    base = args[0].shape if args[0] is not None else None
    if base is None or len(base) != half:  # unknown, or only some axes: a lower bound
        return tuple(max(1, item) for item in added)
    return tuple(max(0, size + item) for size, item in zip(base, added, strict=True))


def _resize(_: Node, args: Args) -> Shape | None:
    base = args[0].shape if args[0] is not None else None
    if (sizes := _numbers(args, 3)) is not None:
        return tuple(abs(int(size)) for size in sizes)
    scales = _numbers(args, 2 if len(args) > 2 else 1)
    return _scaled(base if base and scales and len(base) == len(scales) else None, scales) if scales else None


def _drawn(node: Node, _: Args) -> Shape | None:
    return tuple(abs(size) for size in attribute(node, "shape", ()))


def _known(args: Args) -> list[Shape] | None:
    shapes = [arg.shape for arg in args if arg is not None and arg.shape is not None]
    return shapes if len(shapes) == sum(arg is not None for arg in args) else None


def _broadcast(_: Node, args: Args) -> Shape | None:
    shapes = _known(args)
    return None if shapes is None else tuple(np.broadcast_shapes(*shapes))


def _same(_: Node, args: Args) -> Shape | None:
    return args[0].shape if args and args[0] is not None else None


def _matmul(_: Node, args: Args) -> Shape | None:
    shapes = _known(args[:2])
    if shapes is None or min(map(len, shapes)) < 2:
        return None
    left, right = shapes
    return (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])


def _concat(node: Node, args: Args) -> Shape | None:
    shapes = _known(args)
    if not shapes:
        return None
    axis = attribute(node, "axis", 0) % len(shapes[0])
    return tuple(
        sum(shape[axis] for shape in shapes) if number == axis else size
        for number, size in enumerate(shapes[0])
    )


def _gather(node: Node, args: Args) -> Shape | None:
    shapes = _known(args[:2])
    if shapes is None:
        return None
    data, indices = shapes
    axis = attribute(node, "axis", 0) % len(data)
    return (*data[:axis], *indices, *data[axis + 1 :])


def _reshape(_: Node, args: Args) -> Shape | None:
    base = args[0].shape if args[0] is not None else None
    target = args[1].content if args[1] is not None else None
    if base is None or target is None:
        return None
    sizes = [base[axis] if size == 0 else int(size) for axis, size in enumerate(target.tolist())]
    known = math.prod(size for size in sizes if size != -1)
    return tuple(math.prod(base) // known if size == -1 else size for size in sizes)


def _unsqueeze(node: Node, args: Args) -> Shape | None:
    base = args[0].shape if args[0] is not None else None
    axes = attribute(node, "axes", None)
    if axes is None and len(args) > 1 and args[1] is not None and args[1].content is not None:
        axes = args[1].content.tolist()
    if base is None or axes is None:
        return None
    # Any array of this shape does: broadcasting one element takes no memory.
    return np.expand_dims(np.broadcast_to(np.int8(0), base), tuple(axes)).shape


def _transpose(node: Node, args: Args) -> Shape | None:
    base = args[0].shape if args[0] is not None else None
    perm = attribute(node, "perm", None)
    if base is None:
        return None
    return base[::-1] if perm is None else tuple(base[axis] for axis in perm)


_BROADCASTING = (
    "Add Sub Mul Div Pow Min Max Mean Sum Mod And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual"
    " Where PRelu BitShift BitwiseAnd BitwiseOr BitwiseXor"
)
_UNARY = (
    "Identity Cast CastLike Neg Abs Exp Log Sqrt Reciprocal Sin Cos Tan Tanh Sigmoid Relu LeakyRelu Erf"
    " Floor Ceil Round Sign Not Softmax LogSoftmax Softplus Clip QuantizeLinear DequantizeLinear CumSum"
    " Trilu Dropout RandomNormalLike RandomUniformLike Bernoulli Hardmax Elu Selu Gelu IsNaN IsInf EyeLike"
    " BitwiseNot"
)
_RULES: Mapping[str, Callable[[Node, Args], Shape | None]] = MappingProxyType(
    {
        **dict.fromkeys(_BROADCASTING.split(), _broadcast),
        **dict.fromkeys(_UNARY.split(), _same),
        "ConstantOfShape": _sizes(0),
        "Expand": _expand,
        "Tile": _tile,
        "Range": _range,
        "OneHot": _one_hot,
        "Pad": _pad,
        "Resize": _resize,
        "Upsample": _resize,
        "RandomNormal": _drawn,
        "RandomUniform": _drawn,
        "HannWindow": _sizes(0),
        "HammingWindow": _sizes(0),
        "BlackmanWindow": _sizes(0),
        "MelWeightMatrix": _sizes(0, 1),
        "CenterCropPad": _sizes(1),
        "AffineGrid": _sizes(1),
        "Col2Im": _sizes(1),
        "MaxUnpool": _sizes(2),
        "MatMul": _matmul,
        "Concat": _concat,
        "Gather": _gather,
        "Reshape": _reshape,
        "Unsqueeze": _unsqueeze,
        "Transpose": _transpose,
    }
)


def largest(args: Args) -> Value | None:
    """The largest of a node's inputs."""
    return max((arg for arg in args if arg is not None), key=lambda arg: arg.size_bytes, default=None)
