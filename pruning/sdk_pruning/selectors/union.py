"""The paper's selection over a coupled group, with a fixed count.

The paper keeps, for every output of every layer, the components above a percentile, and removes what no
output keeps; how much that is follows from the percentile. Lowering the percentile lets units back in by the
best percentile that they have anywhere, so that this is the order, for every count.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.selectors.ranking import curve_by, mean_scores, saliency


def union(consumers: Sequence[Consumer], rows: Rows = None, seed: int = 0) -> Curve:  # noqa: ARG001 - a Selector
    """By the best percentile over all outputs of all consumers; ties by row sums."""
    best = torch.stack([_best_percentile(consumer) for consumer in consumers]).amax(0)
    ties = mean_scores(consumers, lambda consumer: saliency(consumer).sum(0))
    by_ties = torch.argsort(ties, stable=True)
    order = by_ties[torch.argsort(best[by_ties], stable=True)]
    return curve_by(torch.argsort(order).to(torch.float64), consumers, rows)


def _best_percentile(consumer: Consumer) -> Tensor:
    """The best percentile over outputs of every unit, among those that the layer reads: (units,), 0 … 1."""
    read = torch.tensor([len(columns) > 0 for columns in consumer.columns])
    score = saliency(consumer)[:, read]
    rank = torch.argsort(torch.argsort(score, dim=1, stable=True), dim=1) + 1
    result = torch.zeros(len(consumer.columns), dtype=torch.float64)
    result[read] = rank.amax(0).to(torch.float64) / max(score.shape[1], 1)
    return result
