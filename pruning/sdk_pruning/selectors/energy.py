"""Units whose own contribution is weakest go first: E‖A_i‖², summed over outputs."""

from collections.abc import Sequence

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.selectors.ranking import curve_by, mean_scores, own_energy


def energy(consumers: Sequence[Consumer], rows: Rows = None, seed: int = 0) -> Curve:  # noqa: ARG001 - a Selector
    """By Σ_c (Q_c)_ii. For language models it is also the paper's (L Lᵀ)_ii and Wanda-sp's, squared."""
    return curve_by(mean_scores(consumers, lambda consumer: own_energy(consumer).sum(0)), consumers, rows)
