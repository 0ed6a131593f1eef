"""Fidelity suppression, ModHiFi-U: the kernels that carry the forgotten classes are zeroed or negated.

With Y_c = Σ_i A_ci, A_ci what input channel i adds to output channel c, the score of a kernel is the row sum
R_ci = E⟨Y_c, A_ci⟩ on samples of the forgotten classes alone, centred where a batch norm follows (ModHiFi,
arXiv 2511.19566, App. D.2). The share p of a layer's kernels with the highest scores goes: zeroed, or, in
networks with layer norms and residuals, negated. The share is of the whole layer, not of each output channel:
of one channel's inputs the published shares (0.001 for VGG19, 0.003 for ResNet-50) are mostly less than one
kernel, and one of each would be all of a first layer that reads grey images.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sdk_pruning.forgetting.editable_layers import EditableLayer
from sdk_pruning.forgetting.labelled import Labelled
from sdk_pruning.forgetting.measures import accuracy
from sdk_pruning.forgetting.moments import Moments, capture_moments
from sdk_pruning.forgetting.stages import Progress

LAST_LAYERS = 12  # before the classifier, as published
SHARES = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Percentiles that are tried where none is given."""
ZEROED, NEGATED = 0.0, -1.0


def kernel_scores(layer: EditableLayer, moments: Moments) -> Tensor:
    """R_ci = E⟨Y_c, A_ci⟩ = Σ_t W_cit (Σ W_cᵀ)_it, for every kernel.

    Args:
        layer: the layer.
        moments: of the forgotten samples.

    Returns:
        float64 (groups, m, n): groups × output channels × input channels.
    """
    weight = layer.matrix()
    second = moments.covariance() if layer.is_normed else moments.second
    energy = weight * (weight @ second)
    return energy.reshape(*energy.shape[:2], -1, layer.taps).sum(3)


def top_share(scores: Tensor, share: float) -> Tensor:
    """The kernels with the highest scores: ⌈share · all⌉ of them, only such as score above 0.

    Returns:
        bool, as `scores`.
    """
    number = min(scores.numel(), max(1, -int(-share * scores.numel() // 1)))
    best = scores.flatten().topk(number).indices
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    chosen[best] = True
    return chosen.view_as(scores) & (scores > 0)


def fidelity_suppress_(
    model: nn.Module,
    layers: Sequence[EditableLayer],
    forget: Labelled,
    retain: Labelled,
    share: float | None,
    factor: float,
    progress: Progress,
) -> float:
    """Multiplies the kernels of the highest scores with `factor`.

    Args:
        model: is changed.
        layers: of it.
        forget: samples of the classes to suppress.
        retain: samples of the others; only to choose the share.
        share: p, of each layer's kernels; None tries `SHARES` and takes the one with the largest gap between
            the accuracy on retained and on forgotten samples, the smallest of equals.
        factor: 0 zeroes, −1 negates.
        progress: told (stage, done, total).

    Returns:
        The share.
    """
    progress("scores", 0, 1)
    moments = capture_moments(model, layers, forget.inputs)
    scores = {layer.name: kernel_scores(layer, moments[layer.name]) for layer in layers}
    dense = {layer.name: layer.matrix() for layer in layers}
    if share is None:
        gaps = []
        for number, tried in enumerate(SHARES):
            progress("choosing the share", number, len(SHARES))
            _scale_(layers, dense, scores, tried, factor)
            gaps.append(accuracy(model, retain) - accuracy(model, forget))
        share = SHARES[gaps.index(max(gaps))]
    _scale_(layers, dense, scores, share, factor)
    return share


def _scale_(
    layers: Sequence[EditableLayer],
    dense: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    share: float,
    factor: float,
) -> None:
    for layer in layers:
        chosen = top_share(scores[layer.name], share).repeat_interleave(layer.taps, dim=2)
        layer.write_(torch.where(chosen, factor * dense[layer.name], dense[layer.name]))
