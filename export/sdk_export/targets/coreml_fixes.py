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

from sdk_export.targets import coreml_arithmetic

aten = torch.ops.aten

# Core ML's tensors have at most this many axes.
MAX_RANK = 5

# Passes of coremltools that lose accuracy in fp32. This one turns `x * a + b` into a batch_norm with variance
# 1 and the default epsilon 1e-5, which scales by 1 / sqrt(1.00001): 5e-6 wrong, silently, at every norm.
INEXACT_PASSES = frozenset({"common::fuse_elementwise_to_batchnorm"})


def pool_1d_stride(x: Tensor, kernel_size: list[int], stride: Sequence[int] = (), *rest: Any) -> Any:
    """A pooling without a stride has its kernel as stride; coremltools wants it said."""
    return NotImplemented if len(stride) else aten.max_pool1d(x, kernel_size, kernel_size, *rest)


def pool_2d_stride(x: Tensor, kernel_size: list[int], stride: Sequence[int] = (), *rest: Any) -> Any:
    """As `pool_1d_stride`."""
    return NotImplemented if len(stride) else aten.max_pool2d(x, kernel_size, kernel_size, *rest)


def rms_norm(
    x: Tensor, normalized_shape: list[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """X / sqrt(mean(x²) + eps) * weight (Zhang and Sennrich, 2019, eq. 4). Silent: `eps` is misplaced."""
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    floor = torch.finfo(x.dtype).eps if eps is None else eps
    normed = x / torch.sqrt((x * x).mean(axes, keepdim=True) + floor)
    return normed if weight is None else normed * weight


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
    # coremltools reads these by position
    normed: Tensor = aten.instance_norm(grouped, None, None, None, None, True, 0.0, eps, False)  # noqa: FBT003 - aten takes these by position
    normed = normed.reshape(x.shape)
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


def matmul(x: Tensor, y: Tensor) -> Any:
    """A product with a vector, as one with a matrix of one row or column."""
    if x.ndim > 1 and y.ndim > 1:
        return NotImplemented
    left, right = (x[None] if x.ndim == 1 else x), (y[:, None] if y.ndim == 1 else y)
    product = torch.matmul(left, right)
    product = product.squeeze(-1) if y.ndim == 1 else product
    return product.squeeze(-1 if y.ndim == 1 else -2) if x.ndim == 1 else product


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attention whose heads are as many on both sides, and exact where a mask leaves a query nothing.

    Key and value heads that serve several query heads each are repeated. Silent: a query whose keys are all
    masked gets zeros from PyTorch and NaN from a softmax over -inf. It looks at everything here, and is
    zeroed after.
    """
    is_grouped = enable_gqa and key.shape[-3] != query.shape[-3]
    is_boolean = attn_mask is not None and attn_mask.dtype == torch.bool
    if not is_grouped and not is_boolean:
        return NotImplemented
    if is_grouped:
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    if attn_mask is None or not is_boolean:
        return aten.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale
        )
    kept = attn_mask.to(query.dtype)
    sees = kept.amax(-1, keepdim=True) > 0
    # A float mask, or this fix would meet its own result. coremltools gives `where` of two scalars no shape.
    bias = torch.zeros_like(kept).masked_fill(~attn_mask & sees, -math.inf)
    seen = aten.scaled_dot_product_attention(query, key, value, bias, dropout_p, is_causal, scale=scale)
    return torch.where(sees, seen, torch.zeros_like(seen))


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    output_padding: Sequence[int] = (0, 0),
    *rest: Any,
) -> Any:
    """`output_padding` beyond an unpadded result is zeros and bias; coremltools raises there."""
    if not any(output_padding) or any(padding):
        return NotImplemented
    grown = (0, output_padding[-1], 0, output_padding[0])
    full = aten.constant_pad_nd(
        aten.conv_transpose2d.input(x, weight, None, stride, padding, (0, 0), *rest), grown
    )
    return full if bias is None else full + bias[:, None, None]


def pad(x: Tensor, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Circular padding as pieces joined, negative padding as a cut."""
    if mode == "circular":
        for place, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
            axis = x.ndim - 1 - place
            size = x.shape[axis]
            x = torch.cat([x.narrow(axis, size - before, before), x, x.narrow(axis, 0, after)], axis)
        return x
    if min(amounts) >= 0:
        return NotImplemented
    for place, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        axis = x.ndim - 1 - place
        x = x.narrow(axis, max(0, -before), x.shape[axis] + min(0, before) + min(0, after))
    return aten.pad(x, [max(0, amount) for amount in amounts], mode, value)


def unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows along an axis, picked by constant indices; a new last axis holds their elements."""
    axis = dimension % x.ndim
    starts = torch.arange(0, x.shape[axis] - size + 1, step, device=x.device)
    picks = (starts[:, None] + torch.arange(size, device=x.device)).reshape(-1)
    shape = (*x.shape[:axis], starts.shape[0], size, *x.shape[axis + 1 :])
    return x.index_select(axis, picks).reshape(shape).movedim(axis + 1, -1)


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
    **coreml_arithmetic.FIXES,
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten.conv_transpose2d.input: conv_transpose2d,
    aten.einsum.default: einsum,
    aten.group_norm.default: group_norm,
    aten.matmul.default: matmul,
    aten.max_pool1d.default: pool_1d_stride,
    aten.max_pool2d.default: pool_2d_stride,
    aten.pad.default: pad,
    aten.permute.default: permute,
    aten.rms_norm.default: rms_norm,
    aten.scaled_dot_product_attention.default: attention,
    aten.unfold.default: unfold,
}

# Silent errors that we have no fix for.
REFUSED: Mapping[Any, str] = {
    aten._upsample_bilinear2d_aa.vec: "coremltools ignores `antialias`",
    aten._upsample_bilinear2d_aa.default: "coremltools ignores `antialias`",
    aten._upsample_bicubic2d_aa.vec: "coremltools ignores `antialias`",
    aten._upsample_bicubic2d_aa.default: "coremltools ignores `antialias`",
}
