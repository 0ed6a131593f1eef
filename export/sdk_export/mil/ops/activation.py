"""Activations, as functions of one tensor."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own spelling

from sdk_export.mil.ops.arguments import along, array, tensor
from sdk_export.mil.weights import Array


def _torch(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Array]:
    """A torch function of `x`."""
    return lambda x: array(function(tensor(x)))


def gelu(x: Array, mode: str = "EXACT") -> Array:
    """Gaussian error linear unit (Hendrycks and Gimpel, 2016), eq. 1, or one of its two approximations."""
    if mode == "SIGMOID_APPROXIMATION":
        return array(tensor(x) * torch.sigmoid(1.702 * tensor(x)))
    return array(F.gelu(tensor(x), approximate="tanh" if mode == "TANH_APPROXIMATION" else "none"))


def leaky_relu(x: Array, alpha: Array) -> Array:
    """`x` where x >= 0, else alpha * x."""
    return np.where(x >= 0, x, alpha * x)


def prelu(x: Array, alpha: Array) -> Array:
    """Leaky relu with one alpha a channel (axis 1)."""
    return leaky_relu(x, along(alpha, 1, x.ndim))


def elu(x: Array, alpha: Array) -> Array:
    """`x` where x > 0, else alpha * (exp(x) - 1)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def sigmoid_hard(x: Array, alpha: Any = 0.2, beta: Any = 0.5) -> Array:
    """min(max(alpha * x + beta, 0), 1)."""
    return np.asarray(np.clip(np.float32(alpha) * x + np.float32(beta), 0, 1))


def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    """alpha_c * log(1 + exp(beta_c * x)) with one alpha and beta a channel (axis 1)."""
    curve = np.logaddexp(np.float32(0), along(beta, 1, x.ndim) * x)
    return np.asarray(along(alpha, 1, x.ndim) * curve)


def scaled_tanh(x: Array, alpha: Array, beta: Array) -> Array:
    """`alpha * tanh(beta * x)`."""
    return np.asarray(alpha * np.tanh(beta * x))


def clamped_relu(x: Array, alpha: Array, beta: Array) -> Array:
    """min(beta, x) where x >= 0, else min(beta, alpha * x)."""
    return np.minimum(leaky_relu(x, alpha), beta)


def linear_activation(x: Array, alpha: Array, beta: Array) -> Array:
    """`alpha * x + beta`."""
    return np.asarray(alpha * x + beta)


def thresholded_relu(x: Array, alpha: Array) -> Array:
    """`x` where x > alpha, else 0."""
    return np.where(x > alpha, x, np.float32(0))


def softmax(x: Array, axis: Any = -1) -> Array:
    """exp(x - max) / sum, along one axis."""
    return array(torch.softmax(tensor(x), int(axis)))


OPS: Mapping[str, Callable[..., Array]] = {
    "clamped_relu": clamped_relu,
    "elu": elu,
    "gelu": gelu,
    "leaky_relu": leaky_relu,
    "linear_activation": linear_activation,
    "prelu": prelu,
    "relu": _torch(torch.relu),
    "relu6": _torch(F.relu6),
    "scaled_tanh": scaled_tanh,
    "sigmoid": _torch(torch.sigmoid),
    "sigmoid_hard": sigmoid_hard,
    "silu": _torch(F.silu),
    "softmax": softmax,
    "softplus": lambda x: np.logaddexp(np.float32(0), x),
    "softplus_parametric": softplus_parametric,
    "softsign": _torch(F.softsign),
    "thresholded_relu": thresholded_relu,
}
