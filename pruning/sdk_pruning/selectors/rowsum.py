"""The score the paper computes for vision networks (appendix D.2)."""

from collections.abc import Sequence

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.selectors.ranking import curve_by, mean_scores, saliency


def rowsum(consumers: Sequence[Consumer], rows: Rows = None, seed: int = 0) -> Curve:  # noqa: ARG001 - a Selector
    """By Σ_c E⟨Y_c, A_ci⟩, the row sums of the similarity matrices."""
    return curve_by(mean_scores(consumers, lambda consumer: saliency(consumer).sum(0)), consumers, rows)
