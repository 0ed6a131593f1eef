"""Where coremltools 9 goes wrong on a torch operation, what to hand it instead.

Each fix is a decomposition: a function with the operation's signature that computes it with others, or
returns NotImplemented to leave it alone. A fix says "silent" where coremltools would convert without a word
and compute something else. Each has its regression test.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

# Core ML's tensors have at most this many axes.
MAX_RANK = 5

# Passes of coremltools that lose accuracy in fp32. This one turns `x * a + b` into a batch_norm with variance
# 1 and the default epsilon 1e-5, which scales by 1 / sqrt(1.00001): 5e-6 wrong, silently, at every norm.
INEXACT_PASSES = frozenset({"common::fuse_elementwise_to_batchnorm"})


def tanh_gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """GELU by tanh (Hendrycks and Gimpel, 2016). Silent: `approximate` is ignored and the exact one comes."""
    if approximate != "tanh":
        return NotImplemented
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + torch.tanh(inner))


def pool_stride(
    x: Tensor,
    kernel_size: list[int],
    stride: Sequence[int] = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    """A pooling without a stride has its kernel as stride; coremltools wants it said."""
    if len(stride):
        return NotImplemented
    return aten.max_pool2d(x, kernel_size, kernel_size, padding, dilation, ceil_mode)


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Group norm as instance norm of the groups.

    coremltools spells it out: seven operations, one of which squares (fp16 overflows at 256), and an error
    for dynamic sizes.
    """
    del cudnn_enabled
    grouped = x.reshape(x.shape[0], num_groups, -1)
    normed = aten.instance_norm(grouped, None, None, None, None, True, 0.0, eps, False).reshape(x.shape)
    shape = (1, x.shape[1]) + (1,) * (x.ndim - 2)
    if weight is not None:
        normed = normed * weight.reshape(shape)
    return normed if bias is None else normed + bias.reshape(shape)


def permute(x: Tensor, dims: list[int]) -> Any:
    """A permutation of more axes than Core ML has, as permutations of merged axes.

    One axis at a time goes to its place: (done, skipped, axis, rest) to (done, axis, skipped, rest). Where
    a network reshapes to many axes, permutes and reshapes back, `merge_views` then leaves none of the many.
    """
    if x.ndim <= MAX_RANK:
        return NotImplemented
    order, wanted = list(range(x.ndim)), [axis % x.ndim for axis in dims]
    sizes = list(x.shape)
    for place, axis in enumerate(wanted):
        found = order.index(axis)
        if found == place:
            continue
        parts = (order[:place], order[place:found], [axis], order[found + 1 :])
        merged = [math.prod(sizes[i] for i in part) for part in parts]
        x = x.reshape(_with_one_inferred(merged)).permute(0, 2, 1, 3)
        order = [*parts[0], axis, *parts[1], *parts[3]]
    return x.reshape([sizes[axis] for axis in wanted])


def einsum(equation: str, operands: list[Tensor], path: list[int] | None = None) -> Any:
    """An einsum of more axes than Core ML has, as the permutations and products it stands for."""
    if max(operand.ndim for operand in operands) <= MAX_RANK:
        return NotImplemented
    # torch's own kernel for it; `decompose()` would look into our table and come back here
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return aten.einsum.default._op_dk(composite, equation, operands, path=path)


def _with_one_inferred(sizes: list[Any]) -> list[Any]:
    """A shape whose first symbolic size is left to be inferred: Core ML cannot multiply sizes cheaply."""
    symbolic = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
    return [-1 if i == next(iter(symbolic), None) else size for i, size in enumerate(sizes)]


def adaptive_avg_pool2d(x: Tensor, output_size: list[int]) -> Any:
    """Means over bins, as two products with constant matrices, where the batch is dynamic.

    Bin i of n over `size` is [floor(i * size / n), ceil((i + 1) * size / n)).
    """
    rows, columns = x.shape[-2:]
    static = all(isinstance(size, int) for size in (rows, columns, *output_size))
    if not static or all(isinstance(size, int) for size in x.shape) or list(output_size) == [1, 1]:
        return NotImplemented
    left = _bins(int(rows), output_size[0], x)
    right = _bins(int(columns), output_size[1], x)
    return left @ x @ right.mT


def _bins(size: int, count: int, like: Tensor) -> Tensor:
    """The (count, size) matrix that averages over bins, from operations that fold into a constant."""
    column = torch.arange(count, device=like.device)[:, None]
    start, end = column * size // count, ((column + 1) * size + count - 1) // count
    place = torch.arange(size, device=like.device)
    inside = torch.logical_and(place >= start, place < end).to(like.dtype)
    return inside / inside.sum(-1, keepdim=True)


FIXES: Mapping[Any, Callable[..., Any]] = {
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten.einsum.default: einsum,
    aten.gelu.default: tanh_gelu,
    aten.group_norm.default: group_norm,
    aten.max_pool2d.default: pool_stride,
    aten.permute.default: permute,
}
