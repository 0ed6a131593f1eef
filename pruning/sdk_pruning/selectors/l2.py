"""Magnitude, the usual baseline: weights only."""

from collections.abc import Sequence

import torch

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.selectors.ranking import by_unit, curve_by


def l2(consumers: Sequence[Consumer], rows: Rows = None, seed: int = 0) -> Curve:  # noqa: ARG001 - a Selector
    """By the squared norm of the weights that read a unit, each consumer relative to all its weights."""
    score = torch.zeros(len(consumers[0].columns), dtype=torch.float64)
    for consumer in consumers:
        squares = consumer.weight.square().sum(0)
        if (total := float(squares.sum())) > 0:
            score += by_unit(squares, consumer) / total
    return curve_by(score, consumers, rows)
