"""Where coremltools 9 goes wrong on a torch operation, what to hand it instead.

Each fix is a decomposition: a function with the operation's signature that computes it with others, or
returns NotImplemented to leave it alone. Every one has a regression test; a silent error without its fix is
said to be one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def tanh_gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """GELU by tanh (Hendrycks and Gimpel, 2016). Silent: `approximate` is ignored and the exact one comes."""
    if approximate != "tanh":
        return NotImplemented
    inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)  # sqrt(2 / pi)
    return 0.5 * x * (1 + torch.tanh(inner))


def pool_stride(
    x: Tensor,
    kernel_size: list[int],
    stride: list[int] | None = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    """A pooling without a stride has its kernel as stride; coremltools wants it said."""
    if stride:
        return NotImplemented
    return aten.max_pool2d(x, kernel_size, kernel_size, padding, dilation, ceil_mode)


FIXES: Mapping[Any, Callable[..., Any]] = {
    aten.gelu.default: tanh_gelu,
    aten.max_pool2d.default: pool_stride,
}
