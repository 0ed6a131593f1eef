"""Operations that treat every element alike: ties pass, and operands that face each other are tied."""

from sdk_pruning.axis_labels import Axis, Labels, bare, equate
from sdk_pruning.propagation import Operation, Rule

_NAMES = [
    "abs",
    "acos",
    "acosh",
    "add",
    "addcdiv",
    "addcmul",
    "alias",
    "alpha_dropout",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bernoulli",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "ceil",
    "celu",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "clone",
    "complex",
    "conj",
    "contiguous",
    "copy",
    "cos",
    "cosh",
    "detach",
    "detach_copy",
    "div",
    "dropout",
    "elu",
    "eq",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "feature_dropout",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "ge",
    "gelu",
    "gt",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "heaviside",
    "hypot",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "leaky_relu",
    "lerp",
    "lift_fresh",
    "lift_fresh_copy",
    "log",
    "log10",
    "log1p",
    "log2",
    "log_sigmoid",
    "logical_and",
    "logical_not",
    "logical_or",
    "logit",
    "lt",
    "masked_fill",
    "maximum",
    "minimum",
    "mish",
    "mul",
    "nan_to_num",
    "ne",
    "neg",
    "polar",
    "positive",
    "pow",
    "rad2deg",
    "real",
    "reciprocal",
    "relu",
    "relu6",
    "remainder",
    "round",
    "rsqrt",
    "rsub",
    "selu",
    "sgn",
    "sigmoid",
    "sign",
    "signbit",
    "silu",
    "sin",
    "sinc",
    "sinh",
    "softplus",
    "softshrink",
    "softsign",
    "sqrt",
    "square",
    "sub",
    "tan",
    "tanh",
    "tanhshrink",
    "threshold",
    "to",
    "to_copy",
    "_to_copy",
    "true_divide",
    "trunc",
    "type_as",
    "where",
    "xlogy",
    "zeros_like",
    "ones_like",
    "full_like",
    "bfloat16",
    "double",
    "empty_like",
    "float",
    "half",
    "int",
    "long",
    "rand_like",
    "randn_like",
    "resolve_conj",
    "rrelu",
    "_assert_tensor_metadata",
]


def elementwise(operation: Operation) -> Labels:
    """Broadcasts its operands, and equates the axes that face each other."""
    return broadcast(operation, operation.labels())


def broadcast(operation: Operation, operands: list[Labels]) -> Labels:
    """The labels of operands combined element by element."""
    shape = operation.shape
    axes: list[Axis] = []
    for axis in range(len(shape)):
        from_end = axis - len(shape)
        facing = [
            operand.axes[from_end]
            for operand in operands
            if len(operand.shape) >= -from_end and operand.shape[from_end] > 1
        ]
        combined: Axis = facing[0] if facing else ()
        for other in facing[1:]:
            combined = equate(operation.ties, combined, other, operation.where)
        axes.append(combined)
    return Labels(shape, tuple(axes))


def prelu(operation: Operation) -> Labels:
    """A slope a channel (axis 1), or one for all."""
    features: Labels = operation.arguments["self"]
    slopes: Labels = operation.arguments["weight"]
    if slopes.shape == (1,):
        return features
    return features.with_axis(1, equate(operation.ties, features.axis(1), slopes.axis(0), operation.where))


def shaped_like(operation: Operation) -> Labels:
    """New tensors whose size the code gives as a number."""
    return bare(operation.shape)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_NAMES, elementwise),
    "prelu": prelu,
    **dict.fromkeys(
        (
            "zeros",
            "ones",
            "full",
            "arange",
            "empty",
            "new_zeros",
            "new_ones",
            "new_full",
            "scalar_tensor",
            "eye",
            "linspace",
            "rand",
            "randn",
            "tril_indices",
            "triu_indices",
            "new_empty",
        ),
        shaped_like,
    ),
}
