"""Statistics of batch norms, estimated anew on what the pruned network computes."""

from collections.abc import Sequence

import torch
from torch import Tensor

Part = tuple[int, Tensor, Tensor]
"""Count, mean and variance of every channel, float64 (C,)."""


def matched_statistics(
    running_mean: Tensor, running_var: Tensor, dense: Sequence[Tensor], pruned: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Running statistics for the pruned network.

    The calibration data are few and the running statistics come from all training data, so these are kept and
    changed by as much as pruning changes the statistics of the same samples: μ + (μ_p − μ_d) and
    σ² · σ_p² / σ_d². Sampling noise is the same on both sides and drops out.

    Args:
        running_mean: (C,), of the dense network.
        running_var: (C,), likewise.
        dense: inputs of the norm in the dense network, batches of (B, C, …).
        pruned: the same in the pruned network.
    """
    mean_dense, var_dense = statistics_of(dense)
    mean_pruned, var_pruned = statistics_of(pruned)
    floor = 1e-12 + 1e-6 * float(var_dense.mean())
    ratio = (var_pruned + floor) / (var_dense + floor)
    mean = running_mean.double() + mean_pruned - mean_dense
    return mean.to(running_mean.dtype), (running_var.double() * ratio).to(running_var.dtype)


def statistics_of(batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel (axis 1) over all batches, float64 (C,)."""
    return combined([part_of(batch) for batch in batches])


def combined(parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """Mean and variance of all batches together, float64 (C,), from those of each."""
    count = sum(part[0] for part in parts)
    mean = sum((part[0] * part[1] for part in parts), torch.zeros(())) / count
    within = sum((part[0] * part[2] for part in parts), torch.zeros(())) / count
    between = sum((part[0] * (part[1] - mean).square() for part in parts), torch.zeros(())) / count
    return mean, within + between


def part_of(batch: Tensor) -> Part:
    """Count, mean and variance of every channel of one batch."""
    axes = [axis for axis in range(batch.ndim) if axis != 1]
    variance, mean = torch.var_mean(batch, axes, correction=0)
    return batch.numel() // batch.shape[1], mean.double(), variance.double()
