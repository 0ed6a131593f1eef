"""The paper's compensation: one scalar for every output channel and input channel (proposition 3.8)."""

import torch
from torch import Tensor

from sdk_pruning.compensators.compensated import Compensated, mean_shift
from sdk_pruning.fidelity import RIDGE
from sdk_pruning.moments import Moments


def delta(
    weight: Tensor, kept_columns: Tensor, moments: Moments, *, centred: bool, taps: int = 1
) -> Compensated:
    """W'_ci = δ_ci W_ci, δ_c = 1 + (Q_CC + λI)⁻¹ ((E⟨Y_c, A_ci⟩)_C − Q_CC 1), one solve an output channel.

    With u = v it is the paper's δ = 1 + Q_CC⁻¹ Q_CC̄ 1. Ridge relative to the mean diagonal of Q_CC.

    Args:
        weight: W, float64 (m, N).
        kept_columns: C, int64, whole channels.
        moments: of u and v.
        centred: use covariances, and leave the difference of means to the bias.
        taps: columns of one input channel.
    """
    start = weight[:, kept_columns]
    target = weight @ moments.cross_second(centred=centred)[:, kept_columns]
    second = moments.pruned_second(centred=centred)[kept_columns][:, kept_columns]
    scales = torch.stack([_scales(*row, second, taps) for row in zip(start, target, strict=True)])
    result = start * scales.repeat_interleave(taps, dim=1)
    shift = torch.zeros(len(weight), dtype=weight.dtype)
    if centred:
        shift = mean_shift(weight, result, moments.mean_dense, moments.mean_pruned[kept_columns])
    return Compensated(result, shift, RIDGE)


def _scales(row: Tensor, target: Tensor, second: Tensor, taps: int) -> Tensor:
    """δ of one output channel, (channels kept,)."""
    channels = len(row) // taps
    products = (row[:, None] * second * row).reshape(channels, taps, channels, taps)
    q = products.sum((1, 3))
    ones = torch.ones(channels, dtype=row.dtype)
    scale = q.diagonal().mean()
    if not channels or not scale > 0:
        return ones
    lack = (row * target).reshape(channels, taps).sum(1) - q.sum(1)
    q.diagonal().add_(RIDGE * scale)
    change: Tensor = torch.linalg.solve(q, lack)
    return ones + change
