"""Ridge suppression: a closed form that flattens what the forgotten classes cause and keeps the rest.

For a layer y = W u + b, with moments about the retain mean μ, S_r of retained and S_f of forgotten samples:

    min over W' of  E_r‖(W − W')(u − μ)‖² + λ E_f‖W'(u − μ)‖² + ε‖W − W'‖²
    W' = W (S_r + εI) A⁻¹ = W − λ W S_f A⁻¹,   A = S_r + λ S_f + εI,      b' = b + (W − W') μ

Forgotten samples come out like the average retained one, which comes out as before. The ridge pulls towards
W, not towards 0: directions that neither set uses stay as they were, and λ = 0 changes nothing.

A layer without a bias gets the minimum under W' μ = W μ instead: with D = λ W S_f A⁻¹,
W' = W − D + D μ (A⁻¹μ)ᵀ / (μᵀA⁻¹μ).

Derived for this SDK; the first term is the least squares that compensates pruning (after arXiv 2511.19566).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdk_pruning.forgetting.editable_layers import EditableLayer
from sdk_pruning.forgetting.labelled import Labelled
from sdk_pruning.forgetting.moments import Moments, capture_moments
from sdk_pruning.forgetting.stages import Progress
from sdk_runtimes.errors import PruningError

STRENGTH = 1.0
LAST_LAYERS = 2  # on digits, four break the network at λ = 10
_RIDGE = 1e-6  # ε as a share of the mean of A's diagonal


def ridge_suppress_(
    model: nn.Module,
    layers: Sequence[EditableLayer],
    forget: Labelled,
    retain: Labelled,
    strength: float,
    progress: Progress,
) -> None:
    """Edits the layers in the order in which they run, each on what the edited ones before it give.

    Args:
        model: is changed.
        layers: of it.
        forget: samples of the classes to suppress.
        retain: samples of the others.
        strength: λ.
        progress: told (stage, done, total).

    Raises:
        PruningError: a layer whose system cannot be solved.
    """
    for number, layer in enumerate(layers):
        progress("ridge", number, len(layers))
        retained = capture_moments(model, [layer], retain.inputs)[layer.name]
        forgotten = capture_moments(model, [layer], forget.inputs)[layer.name]
        edit_layer_(layer, retained, forgotten, strength)


def edit_layer_(layer: EditableLayer, retained: Moments, forgotten: Moments, strength: float) -> None:
    """Writes W' and b' into one layer.

    Raises:
        PruningError: the system cannot be solved.
    """
    weight, mean = layer.matrix(), retained.mean
    second, unwanted = retained.covariance(), forgotten.about(mean)
    has_bias = layer.module.bias is not None
    try:
        change = ridge_change(weight, second, unwanted, strength, None if has_bias else mean)
    except RuntimeError as error:
        raise PruningError(
            f"the ridge system of layer {layer.name!r} at strength {strength:g} cannot be solved",
            why=str(error),
            fix="a smaller strength, more samples, or other layers",
        ) from error
    layer.write_(weight - change)
    if has_bias:
        layer.shift_bias_((change @ mean[:, :, None]).squeeze(-1))


def ridge_change(
    weight: Tensor, retain: Tensor, forget: Tensor, strength: float, mean: Tensor | None = None
) -> Tensor:
    """W − W' of the closed form.

    Args:
        weight: W, float64 (groups, m, N).
        retain: S_r, float64 (groups, N, N).
        forget: S_f about the retain mean, float64 (groups, N, N).
        strength: λ.
        mean: μ, float64 (groups, N), for a layer without a bias: the change is zero on it.

    Returns:
        float64 (groups, m, N).

    Raises:
        RuntimeError: not positive definite (torch.linalg.LinAlgError is one).
    """
    factor = torch.linalg.cholesky(ridge_system(retain, forget, strength))
    change = strength * torch.cholesky_solve(forget @ weight.mT, factor).mT
    if mean is None:
        return change
    column = mean[:, :, None]  # (groups, N, 1)
    solved = torch.cholesky_solve(column, factor)
    length = (column.mT @ solved).clamp_min(torch.finfo(torch.float64).tiny)  # zero only where μ is
    return change - (change @ column) @ solved.mT / length


def ridge_system(retain: Tensor, forget: Tensor, strength: float) -> Tensor:
    """A = S_r + λ S_f + εI, (groups, N, N)."""
    total = retain + strength * forget
    diagonal = total.diagonal(dim1=1, dim2=2)
    epsilon = (_RIDGE * diagonal.mean(1)).clamp_min(torch.finfo(torch.float64).eps)  # features that are all 0
    return total + torch.diag_embed(epsilon[:, None].expand_as(diagonal))
