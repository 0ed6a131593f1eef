"""The floor under every selector."""

from collections.abc import Sequence

import torch

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.selectors.ranking import curve_by


def random_order(consumers: Sequence[Consumer], rows: Rows = None, seed: int = 0) -> Curve:
    """A seeded permutation."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(consumers[0].columns), generator=generator)
    return curve_by(order.to(torch.float64), consumers, rows)
