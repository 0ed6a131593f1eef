"""The paper's compensation: one scalar for every output channel and input channel (proposition 3.8)."""

import torch
from torch import Tensor

from sdk_pruning.compensators.compensated import Compensated, mean_shift
from sdk_pruning.fidelity import RIDGE
from sdk_pruning.moments import Moments

_OUTPUTS = 16
"""Outputs whose similarity matrices are made at once."""


def delta(
    weight: Tensor,
    kept_columns: Tensor,
    moments: Moments,
    *,
    centred: bool,
    taps: int = 1,
    prior: Tensor | None = None,  # noqa: ARG001 - a Compensator; the paper knows no prior
) -> Compensated:
    """W'_ci = δ_ci W_ci, δ_c = 1 + (Q_CC + λI)⁻¹ ((E⟨Y_c, A_ci⟩)_C − Q_CC 1), one solve an output channel.

    With u = v it is the paper's δ = 1 + Q_CC⁻¹ Q_CC̄ 1. Ridge relative to the mean diagonal of Q_CC.

    Args:
        weight: W, float64 (m, N).
        kept_columns: C, int64, whole channels.
        moments: of u and v.
        centred: use covariances, and leave the difference of means to the bias.
        taps: columns of one input channel.
        prior: ignored.
    """
    start = weight[:, kept_columns]
    target = weight @ moments.cross_second(centred=centred, columns=kept_columns)
    second = moments.pruned_second(centred=centred, columns=kept_columns)
    scales = torch.cat(
        [_scales(rows, aims, second, taps) for rows, aims in zip(_parts(start), _parts(target), strict=True)]
    )
    result = start * scales.repeat_interleave(taps, dim=1)
    shift = torch.zeros(len(weight), dtype=weight.dtype)
    if centred:
        shift = mean_shift(weight, result, moments.mean_dense, moments.mean_pruned[kept_columns])
    return Compensated(result, shift, RIDGE)


def _parts(rows: Tensor) -> list[Tensor]:
    return [rows[first : first + _OUTPUTS] for first in range(0, len(rows), _OUTPUTS)]


def _scales(rows: Tensor, target: Tensor, second: Tensor, taps: int) -> Tensor:
    """δ of some outputs, (outputs, channels kept); 1 for an output that reads nothing."""
    outputs, columns = rows.shape
    channels = columns // taps
    shares = rows.view(outputs, channels, taps)
    half = shares.transpose(0, 1) @ second.view(channels, taps, columns)
    q = (half.view(channels, outputs, channels, taps) * shares).sum(3).transpose(0, 1)
    lack = (rows * target).view(outputs, channels, taps).sum(2) - q.sum(2)
    scale = q.diagonal(dim1=1, dim2=2).sum(1) / max(channels, 1)
    ridge = torch.where(scale > 0, RIDGE * scale, 1.0)
    change: Tensor = torch.linalg.solve(q + ridge[:, None, None] * torch.eye(channels, dtype=q.dtype), lack)
    return 1 + change
