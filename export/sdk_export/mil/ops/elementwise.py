"""Arithmetic, comparison and logic, element by element; operands broadcast as numpy's do."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from sdk_export.mil.ops.arguments import array, tensor
from sdk_export.mil.weights import Array


def _unary(function: Callable[[Array], Any]) -> Callable[..., Array]:
    """A function of `x`."""
    return lambda x: np.asarray(function(x))


def _binary(function: Callable[[Array, Array], Any]) -> Callable[..., Array]:
    """A function of `x` and `y`."""

    def apply(x: Array, y: Array) -> Array:
        return np.asarray(function(x, y))

    return apply


def erf(x: Array) -> Array:
    """The error function."""
    return array(torch.erf(tensor(np.asarray(x))))


def clip(x: Array, alpha: Array, beta: Array) -> Array:
    """min(max(x, alpha), beta)."""
    return np.clip(x, alpha, beta)


def inverse(x: Array, epsilon: Any = 1e-4) -> Array:
    """1 / (x + epsilon)."""
    return np.reciprocal(x + np.float32(epsilon))


def log(x: Array, epsilon: Any = 1e-45) -> Array:
    """Natural logarithm of x + epsilon."""
    return np.log(x + np.float32(epsilon))


def rsqrt(x: Array, epsilon: Any = 1e-12) -> Array:
    """1 / sqrt(x + epsilon)."""
    return np.reciprocal(np.sqrt(x + np.float32(epsilon)))


def threshold(x: Array, alpha: Array) -> Array:
    """max(x, alpha)."""
    return np.maximum(x, alpha)


def real_div(x: Array, y: Array) -> Array:
    """`x / y`; the quotient of integers is cut towards zero when it is stored as an integer."""
    return np.true_divide(x, y)


def select(cond: Array, a: Array, b: Array) -> Array:
    """`a` where `cond`, else `b`."""
    return np.where(cond, a, b)


def cast(x: Array, dtype: str) -> Array:
    """Another type: to integers towards zero, to bool as x != 0. The output's declared type does it."""
    del dtype
    return x


OPS: Mapping[str, Callable[..., Array]] = {
    "abs": _unary(np.abs),
    "acos": _unary(np.arccos),
    "asin": _unary(np.arcsin),
    "atan": _unary(np.arctan),
    "atanh": _unary(np.arctanh),
    "cast": cast,
    "ceil": _unary(np.ceil),
    "clip": clip,
    "cos": _unary(np.cos),
    "cosh": _unary(np.cosh),
    "erf": erf,
    "exp": _unary(np.exp),
    "exp2": _unary(np.exp2),
    "floor": _unary(np.floor),
    "identity": _unary(lambda x: x),
    "inverse": inverse,
    "log": log,
    "logical_not": _unary(np.logical_not),
    "round": _unary(np.rint),
    "rsqrt": rsqrt,
    "select": select,
    "sign": _unary(np.sign),
    "sin": _unary(np.sin),
    "sinh": _unary(np.sinh),
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "tan": _unary(np.tan),
    "tanh": _unary(np.tanh),
    "threshold": threshold,
    "add": _binary(np.add),
    "equal": _binary(np.equal),
    "floor_div": _binary(np.floor_divide),
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "logical_and": _binary(np.logical_and),
    "logical_or": _binary(np.logical_or),
    "logical_xor": _binary(np.logical_xor),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "not_equal": _binary(np.not_equal),
    "pow": _binary(np.power),
    "real_div": real_div,
    "sub": _binary(np.subtract),
}
