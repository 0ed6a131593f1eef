"""What a compensator returns, and the solve that all of them share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sdk_pruning.fidelity import RIDGE

_ATTEMPTS = 12
"""How often a ridge is made ten times stronger; rounding never needs as many."""


@dataclass(frozen=True)
class Compensated:
    """Weights for the columns that stay.

    Attributes:
        weight: float64 (m, columns kept).
        bias_shift: to be added to the bias, float64 (m,).
        ridge: that was used, relative to the mean diagonal of the moment of what stays.
    """

    weight: Tensor
    bias_shift: Tensor
    ridge: float


def towards(
    target: Tensor, second: Tensor, start: Tensor, ridge: float, prior: Tensor | None = None
) -> tuple[Tensor, float]:
    """Least squares from moments: W' = (T + W₀ (λI + D))(S + λI + D)⁻¹.

    It minimises tr(W' S W'ᵀ) − 2 tr(T W'ᵀ) + Σ_i (λ + d_i)‖w'_i − w₀_i‖².

    Args:
        target: T, (m, n).
        second: S, positive semi-definite (n, n).
        start: W₀, where a strong ridge leads to; (m, n).
        ridge: λ relative to the mean diagonal of S. Where S is not positive definite with it, ten times as
            much until it is; a moment without any energy leaves W₀.
        prior: d, how much stronger each column is held to W₀; (n,).

    Returns:
        W', and the relative ridge that was used.
    """
    size = len(second)
    scale = float(second.diagonal().mean()) if size else 0.0
    if not scale > 0:
        return start.clone(), ridge
    eye = torch.eye(size, dtype=second.dtype)
    held = second if prior is None else second + prior.diag()
    for _ in range(_ATTEMPTS):
        root, failed = torch.linalg.cholesky_ex(held + ridge * scale * eye)
        if not failed:
            # Solved for the difference: what the kept weights explain already is not computed twice.
            change = torch.cholesky_solve((target - start @ second).T, root).T
            return start + change, ridge
        ridge = max(10 * ridge, RIDGE)
    return start.clone(), ridge


def mean_shift(weight: Tensor, kept_weight: Tensor, mean_dense: Tensor, mean_kept: Tensor) -> Tensor:
    """W μ_u − W' μ_v: what the mean of the output lacks, (m,)."""
    return weight @ mean_dense - kept_weight @ mean_kept
