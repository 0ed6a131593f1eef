"""One mixing of channels for all taps and outputs (GRAIL, arXiv 2602.23795).

For transposed convolutions, whose inputs have no patches, and for convolutions with too many columns to solve
for. The channels that go are written as a combination of those that stay, u ≈ B v_P, and whatever reads them
reads that.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sdk_pruning.compensators.least_squares import least_squares
from sdk_pruning.moments import Moments


@dataclass(frozen=True)
class Mixing:
    """How all channels follow from those that stay: u ≈ B v_P + c.

    Attributes:
        matrix: B, float64 (channels, channels kept).
        shift: c, float64 (channels,); zero unless centred.
        ridge: that was used.
    """

    matrix: Tensor
    shift: Tensor
    ridge: float


def mixing(kept_channels: Tensor, moments: Moments, *, centred: bool, ridge: float | None = None) -> Mixing:
    """B = (S_uv,P + λ E_P)(S_vv,PP + λ I)⁻¹, with moments over channels instead of patches.

    Args:
        kept_channels: P, int64.
        moments: of (positions, channels).
        centred: use covariances and a shift.
        ridge: as in `least_squares`.
    """
    every = torch.eye(len(moments.mean_dense), dtype=torch.float64)
    fitted = least_squares(every, kept_channels, moments, centred=centred, ridge=ridge)
    return Mixing(fitted.weight, fitted.bias_shift, fitted.ridge)


def mixed(weight: Tensor, mixture: Mixing, axis: int) -> Tensor:
    """W'[p] = Σ_i W[i] B[i, p] along the axis of input channels.

    Args:
        weight: of a convolution (axis 1) or a transposed convolution (axis 0), or any other.
        mixture: of its input channels.
        axis: of the input channels.

    Returns:
        The weight with the kept channels along that axis.
    """
    product: Tensor = torch.tensordot(weight, mixture.matrix, dims=([axis], [0]))
    return product.movedim(-1, axis)


def mixed_bias_shift(weight: Tensor, mixture: Mixing, axis: int) -> Tensor:
    """What a constant input of `shift` adds to every output, summed over taps: (outputs,).

    Exact where all taps read inside the input; borders that are padded with zeros get as much as the rest. A
    transposed convolution with a stride spreads its taps over stride² phases: divide by that for the mean.

    Args:
        weight: (outputs, inputs, *taps) with axis 1, or (inputs, outputs, *taps) with axis 0.
        mixture: of its input channels.
        axis: of the input channels.
    """
    taps: Tensor = torch.tensordot(weight, mixture.shift, dims=([axis], [0]))
    return taps.flatten(1).sum(1)
