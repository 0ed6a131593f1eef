"""Arithmetic that coremltools 9 gets wrong or does not know, in operations that it gets right.

See `coreml_fixes` for what a fix is. "Silent" says that the program would come out without a word, and wrong.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def tanh_gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """GELU by tanh (Hendrycks and Gimpel, 2016). Silent: `approximate` is ignored and the exact one comes."""
    if approximate != "tanh":
        return NotImplemented
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + torch.tanh(inner))


def add(x: Tensor, other: Any, *, alpha: Any = 1) -> Any:
    """`x + alpha * other`. Silent: `alpha` is ignored."""
    return NotImplemented if alpha == 1 else x + alpha * other


def sub(x: Tensor, other: Any, *, alpha: Any = 1) -> Any:
    """`x - alpha * other`. Silent: `alpha` is ignored."""
    return NotImplemented if alpha == 1 else x - alpha * other


def rsub(x: Tensor, other: Any, alpha: Any = 1) -> Tensor:
    """`other - alpha * x`."""
    return torch.add(torch.mul(x, -alpha), other)


def reciprocal(x: Tensor) -> Tensor:
    """1 / x. Silent: becomes 1 / (x + 1e-4), MIL's default epsilon of `inverse`."""
    return torch.div(_scalar(1, x), x)


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x). Silent: becomes 1 / sqrt(x + 1e-12), MIL's default epsilon of `rsqrt`."""
    return _scalar(1, x) / torch.sqrt(x)


def softplus(x: Tensor, beta: Any = 1, threshold: Any = 20) -> Any:
    """Log(1 + exp(beta x)) / beta, x itself above `threshold`. Silent: `threshold` is ignored."""
    if (beta, threshold) == (1, 20):  # there the two differ by less than fp32 resolves
        return NotImplemented
    scaled = beta * x
    return torch.where(scaled > threshold, x, aten.softplus(torch.clamp(scaled, max=threshold)) / beta)


def log_sigmoid(x: Tensor) -> Tensor:
    """-softplus(-x)."""
    return torch.neg(aten.softplus(-x))


def asinh(x: Tensor) -> Tensor:
    """Inverse hyperbolic sine, odd by construction."""
    size = torch.abs(x)
    return torch.sign(x) * torch.log(size + torch.sqrt(size * size + 1))


def acosh(x: Tensor) -> Tensor:
    """Inverse hyperbolic cosine."""
    return torch.log(x + torch.sqrt(x * x - 1))


def trunc(x: Tensor) -> Tensor:
    """Towards zero."""
    return torch.mul(torch.sign(x), torch.floor(torch.abs(x)))


def fmod(x: Tensor, other: Any) -> Tensor:
    """Remainder with the sign of x."""
    return torch.sub(x, trunc(x / other) * other)


def isinf(x: Tensor) -> Tensor:
    """Whether an element is infinite."""
    return torch.eq(torch.abs(x), math.inf)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Index of the largest element. Silent: without `dim`, the last axis is taken for the whole tensor."""
    if dim is not None or keepdim:
        return NotImplemented
    return aten.argmax(x.reshape(-1), 0)


def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Index of the smallest element. Silent: as `argmax`."""
    if dim is not None or keepdim:
        return NotImplemented
    return aten.argmin(x.reshape(-1), 0)


def var_mean(
    x: Tensor, dim: list[int] | None = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """Variance and mean."""
    return aten.var.correction(x, dim, correction=correction, keepdim=keepdim), torch.mean(x, dim, keepdim)


def where_scalar_self(condition: Tensor, x: Any, other: Tensor) -> Tensor:
    """`where` with a number for the first choice, which must be of the other's type."""
    return torch.where(condition, _scalar(x, other), other)


def where_scalar_other(condition: Tensor, x: Tensor, other: Any) -> Tensor:
    """`where` with a number for the second choice, which must be of the first's type."""
    return torch.where(condition, x, _scalar(other, x))


def cosine_similarity(x: Tensor, y: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """X · y / (max(|x|, eps) max(|y|, eps))."""
    lengths = [torch.sqrt((each * each).sum(dim)).clamp(min=eps) for each in (x, y)]
    return (x * y).sum(dim) / (lengths[0] * lengths[1])


def bitwise_or(x: Tensor, other: Tensor) -> Any:
    """Of booleans, the logical one."""
    return torch.logical_or(x, other) if x.dtype == torch.bool else NotImplemented


def bitwise_xor(x: Tensor, other: Tensor) -> Any:
    """Of booleans, the logical one."""
    return torch.logical_xor(x, other) if x.dtype == torch.bool else NotImplemented


def _scalar(value: Any, like: Tensor) -> Tensor:
    """A number as a tensor of a type; a constant in the program."""
    return torch.full((), value, dtype=like.dtype, device=like.device)


FIXES: Mapping[Any, Callable[..., Any]] = {
    aten.acosh.default: acosh,
    aten.add.Tensor: add,
    aten.argmax.default: argmax,
    aten.argmin.default: argmin,
    aten.asinh.default: asinh,
    aten.bitwise_or.Tensor: bitwise_or,
    aten.bitwise_xor.Tensor: bitwise_xor,
    aten.cosine_similarity.default: cosine_similarity,
    aten.fmod.Scalar: fmod,
    aten.fmod.Tensor: fmod,
    aten.gelu.default: tanh_gelu,
    aten.isinf.default: isinf,
    aten.log_sigmoid.default: log_sigmoid,
    aten.reciprocal.default: reciprocal,
    aten.rsqrt.default: rsqrt,
    aten.rsub.Scalar: rsub,
    aten.rsub.Tensor: rsub,
    aten.softplus.default: softplus,
    aten.sub.Tensor: sub,
    aten.trunc.default: trunc,
    aten.var_mean.correction: var_mean,
    aten.where.ScalarOther: where_scalar_other,
    aten.where.ScalarSelf: where_scalar_self,
}
