"""Products of matrices, and attention."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own spelling

from sdk_export.mil.ops.arguments import array, tensor
from sdk_export.mil.weights import Array


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """`x @ weight.T + bias`; weight is (C_out, C_in)."""
    return array(F.linear(tensor(x), tensor(weight), None if bias is None else tensor(bias)))


def matmul(x: Array, y: Array, transpose_x: Any = False, transpose_y: Any = False) -> Array:
    """Batched product; a flag transposes an operand's last two axes, where it has two."""
    left, right = tensor(x), tensor(y)
    if bool(transpose_x) and left.ndim > 1:
        left = left.mT
    if bool(transpose_y) and right.ndim > 1:
        right = right.mT
    return array(torch.matmul(left, right))


def einsum(values: tuple[Array, ...], equation: str) -> Array:
    """Einstein summation; MIL takes two operands."""
    return array(torch.einsum(equation, *(tensor(value) for value in values)))


def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None
) -> Array:
    """softmax(Q Kᵀ / sqrt(E) + mask) V (Vaswani et al., 2017, eq. 1); a bool mask says who takes part.

    Not torch's function of this name: that one gives 0 for a row whose mask lets nothing through, and this
    formula, which is the one MIL documents, gives NaN.
    """
    scores = torch.matmul(tensor(query), tensor(key).mT) / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        mask = tensor(attn_mask)
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return array(torch.matmul(torch.softmax(scores, -1), tensor(value)))


def band_part(x: Array, lower: Any = -1, upper: Any = -1) -> Array:
    """Zeros outside a band of the innermost matrix; a negative count keeps that whole triangle."""
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    keep = np.ones(x.shape[-2:], bool)
    if int(lower) >= 0:
        keep &= rows - columns <= int(lower)
    if int(upper) >= 0:
        keep &= columns - rows <= int(upper)
    return np.where(keep, x, np.zeros((), x.dtype))


OPS: Mapping[str, Callable[..., Array]] = {
    "band_part": band_part,
    "einsum": einsum,
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
