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
_SKETCH = 64
"""Outputs that judge a ridge."""


def least_squares(
    weight: Tensor,
    kept_columns: Tensor,
    moments: Moments,
    *,
    centred: bool,
    taps: int = 1,  # noqa: ARG001 - a Compensator; taps are columns like any others here
    ridge: float | None = None,
    prior: Tensor | None = None,
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
        prior: how much stronger each column is held to its old weight, (N,).
    """
    held = None if prior is None else prior[kept_columns]
    if ridge is None:
        ridge = RIDGE if prior is not None else best_ridge(weight, kept_columns, moments, centred=centred)
    return _solve(weight, kept_columns, moments, centred=centred, ridge=ridge, prior=held)


def best_ridge(weight: Tensor, kept_columns: Tensor, moments: Moments, *, centred: bool) -> float:
    """Two-fold cross-validation from moments alone: one half fits, the other half judges, and in turn.

    Half as many samples are twice as noisy, so what is tried on a half as 2λ is λ for all. Samples of one
    image are alike: halves that are whole images judge honestly, where generalised cross-validation, which
    takes samples for independent, trusts too much (with few images it was worse than the usual ridge).

    Returns:
        The relative ridge; the usual one where the moments have no halves.
    """
    if len(moments.halves) != 2:
        return RIDGE
    first, second = moments.halves
    probe = _sketch(weight)
    risks = [
        sum(both)
        for both in zip(
            _risks(probe, kept_columns, first, second, centred=centred),
            _risks(probe, kept_columns, second, first, centred=centred),
            strict=True,
        )
    ]
    return CANDIDATES[min(range(len(risks)), key=risks.__getitem__)]


def _solve(
    weight: Tensor, kept: Tensor, moments: Moments, *, centred: bool, ridge: float, prior: Tensor | None
) -> Compensated:
    second = moments.pruned_second(centred=centred, columns=kept)
    target = weight @ moments.cross_second(centred=centred, columns=kept)
    result, used = towards(target, second, weight[:, kept], ridge, prior)
    return Compensated(result, _shift(weight, result, kept, moments, centred=centred), used)


def _shift(weight: Tensor, result: Tensor, kept: Tensor, moments: Moments, *, centred: bool) -> Tensor:
    if not centred:
        return torch.zeros(len(weight), dtype=weight.dtype)
    return mean_shift(weight, result, moments.mean_dense, moments.mean_pruned[kept])


def _risks(weight: Tensor, kept: Tensor, fit: Moments, judge: Moments, *, centred: bool) -> list[float]:
    """E‖W u − W' v_C − b‖² on other samples for every candidate, less what does not depend on W' and b.

    With the output's mean error e = W μ_u − W' μ_v − b it is tr(W' V W'ᵀ) − 2 tr(W X W'ᵀ) + ‖e‖², V and X the
    covariances.
    """
    second = fit.pruned_second(centred=centred, columns=kept)
    target = weight @ fit.cross_second(centred=centred, columns=kept)
    quadratic = judge.pruned_second(centred=True, columns=kept)
    linear = weight @ judge.cross_second(centred=True, columns=kept)
    risks = []
    for ridge in CANDIDATES:
        result, _ = towards(target, second, weight[:, kept], 2 * ridge)
        bias = _shift(weight, result, kept, fit, centred=centred)
        off = mean_shift(weight, result, judge.mean_dense, judge.mean_pruned[kept]) - bias
        risks.append(float(torch.sum((result @ quadratic - 2 * linear) * result) + off.square().sum()))
    return risks


def _sketch(weight: Tensor) -> Tensor:
    """At most `_SKETCH` random combinations of outputs; W' is linear in W, so that they say what all say."""
    if len(weight) <= _SKETCH:
        return weight
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_SKETCH, len(weight), generator=generator, dtype=weight.dtype) @ weight
