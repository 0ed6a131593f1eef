"""The fidelity of single units, aggregated over outputs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.selectors.ranking import curve_by, mean_scores, own_energy, saliency


def singleton(consumers: Sequence[Consumer], rows: Rows = None, seed: int = 0) -> Curve:  # noqa: ARG001 - a Selector
    """By FS({i}) = Σ_c (Q_c 1)_i² / (Q_c)_ii / Σ_c 1ᵀQ_c 1; optimal for uncorrelated units (theorem 3.9)."""
    return curve_by(mean_scores(consumers, _explained), consumers, rows)


def _explained(consumer: Consumer) -> Tensor:
    """What each unit alone explains of E‖y‖², every output with its best scale, (units,)."""
    own = own_energy(consumer)
    alive = own > 0
    return torch.where(alive, saliency(consumer).square() / own.where(alive, torch.ones_like(own)), 0.0).sum(
        0
    )
