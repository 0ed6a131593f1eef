"""Normalisations."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812  # torch's own spelling

from sdk_export.mil.ops.arguments import along, array, axes_of, tensor
from sdk_export.mil.weights import Array


def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Any = 1e-5,
) -> Array:
    """gamma_c * (x - mean_c) / sqrt(variance_c + epsilon) + beta_c, channels on axis 1."""
    scale = 1 / np.sqrt(variance + np.float32(epsilon))
    if gamma is not None:
        scale = scale * gamma
    result = (x - along(mean, 1, x.ndim)) * along(scale, 1, x.ndim)
    return np.asarray(result if beta is None else result + along(beta, 1, x.ndim))


def _standardised(x: Array, axes: tuple[int, ...], epsilon: Any) -> Array:
    """(x - mean) / sqrt(variance + epsilon) over some axes, biased variance."""
    centred = x - x.mean(axis=axes, keepdims=True, dtype=np.float32)
    variance = np.square(centred).mean(axis=axes, keepdims=True, dtype=np.float32)
    return np.asarray(centred / np.sqrt(variance + np.float32(epsilon)))


def instance_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: Any = 1e-5
) -> Array:
    """Standardises every channel of every image over its spatial axes, then gamma_c and beta_c."""
    result = _standardised(x, tuple(range(2, x.ndim)), epsilon)
    if gamma is not None:
        result = result * along(gamma, 1, x.ndim)
    return np.asarray(result if beta is None else result + along(beta, 1, x.ndim))


def layer_norm(
    x: Array,
    axes: Array | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Any = 1e-5,
) -> Array:
    """Standardises over `axes`; gamma and beta have the shape of those axes, in their order in x."""
    chosen = tuple(sorted(axis % x.ndim for axis in (axes_of(axes) or range(x.ndim))))
    result = _standardised(x, chosen, epsilon)
    shape = [size if axis in chosen else 1 for axis, size in enumerate(x.shape)]
    if gamma is not None:
        result = result * gamma.reshape(shape)
    return np.asarray(result if beta is None else result + beta.reshape(shape))


def l2_norm(x: Array, epsilon: Any = 1e-6) -> Array:
    """`x / sqrt(sum of squares + epsilon)` over the last three axes."""
    squares = np.square(x).sum(axis=(-3, -2, -1), keepdims=True)
    return np.asarray(x / np.sqrt(squares + np.float32(epsilon)))


def local_response_norm(x: Array, size: Any, alpha: Any = 1e-4, beta: Any = 0.75, k: Any = 1.0) -> Array:
    """`x / (k + alpha / size * squares) ** beta`, squares summed over `size` neighbouring channels."""
    result = F.local_response_norm(tensor(x), int(size), float(alpha), float(beta), float(k))
    return array(result)


OPS: Mapping[str, Callable[..., Array]] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "layer_norm": layer_norm,
    "local_response_norm": local_response_norm,
}
