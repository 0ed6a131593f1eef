"""The best linear compensation: every weight that stays is solved for anew.

The target is what the dense network computes on its own features, from the features that the pruned network
really has there (asymmetric, as AsymInChange of El Halabi et al. 2022), so that errors of earlier layers are
corrected too. For a convolution the columns are channels × taps, and the search space contains both the
paper's scalars per channel and GRAIL's channel mixing.
"""

import torch
from torch import Tensor

from sdk_pruning.compensators.compensated import Compensated, mean_shift, towards
from sdk_pruning.fidelity import RIDGE
from sdk_pruning.moments import Moments

CANDIDATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges, relative to the mean diagonal, among which the two halves of the samples decide."""


def least_squares(
    weight: Tensor,
    kept_columns: Tensor,
    moments: Moments,
    *,
    centred: bool,
    taps: int = 1,  # noqa: ARG001 - a Compensator; taps are columns like any others here
    ridge: float | None = None,
) -> Compensated:
    """Minimises E‖W u − W' v_C‖² + λ‖W' − W_C‖²: W' = (W S_uv,C + λ W_C)(S_vv,CC + λ I)⁻¹.

    Args:
        weight: W, float64 (m, N).
        kept_columns: C, int64.
        moments: of u and v.
        centred: use covariances, and leave the difference of means to the bias.
        taps: of one input channel.
        ridge: λ relative to the mean diagonal of S_vv,CC; None: what serves the other half of the samples
            best.
    """
    if ridge is None:
        ridge = best_ridge(weight, kept_columns, moments, centred=centred)
    return _solve(weight, kept_columns, moments, centred=centred, ridge=ridge)


def best_ridge(weight: Tensor, kept_columns: Tensor, moments: Moments, *, centred: bool) -> float:
    """Two-fold cross-validation from moments alone: one half fits, the other half judges, and in turn.

    Half as many samples are twice as noisy, so what is tried on a half as 2λ is λ for all. Samples of one
    image are alike; halves that are whole images judge honestly where a formula for independent samples (GCV,
    Ledoit–Wolf) would trust too much.

    Returns:
        The relative ridge; the usual one where the moments have no halves.
    """
    if len(moments.halves) != 2:
        return RIDGE
    first, second = moments.halves
    risks = [
        sum(
            _risk(
                weight,
                kept_columns,
                judge,
                _solve(weight, kept_columns, fit, centred=centred, ridge=2 * ridge),
            )
            for fit, judge in ((first, second), (second, first))
        )
        for ridge in CANDIDATES
    ]
    return CANDIDATES[min(range(len(risks)), key=risks.__getitem__)]


def _solve(weight: Tensor, kept: Tensor, moments: Moments, *, centred: bool, ridge: float) -> Compensated:
    start = weight[:, kept]
    target = weight @ moments.cross_second(centred=centred)[:, kept]
    second = moments.pruned_second(centred=centred)[kept][:, kept]
    result, used = towards(target, second, start, ridge)
    shift = torch.zeros(len(weight), dtype=weight.dtype)
    if centred:
        shift = mean_shift(weight, result, moments.mean_dense, moments.mean_pruned[kept])
    return Compensated(result, shift, used)


def _risk(weight: Tensor, kept: Tensor, judge: Moments, fitted: Compensated) -> float:
    """E‖W u − W' v_C − b‖² on other samples, less what does not depend on W' and b.

    With the output's mean error e = W μ_u − W' μ_v − b it is tr(W' V W'ᵀ) − 2 tr(W X W'ᵀ) + ‖e‖², V and X the
    covariances.
    """
    result = fitted.weight
    quadratic = torch.sum(result @ judge.pruned_second(centred=True)[kept][:, kept] * result)
    linear = torch.sum(weight @ judge.cross_second(centred=True)[:, kept] * result)
    off = mean_shift(weight, result, judge.mean_dense, judge.mean_pruned[kept]) - fitted.bias_shift
    return float(quadratic - 2 * linear + off.square().sum())
