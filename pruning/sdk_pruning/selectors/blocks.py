"""Consumers in the form that the search over subsets works on: one block of equal size a unit."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdk_pruning.components import Consumer
from sdk_pruning.fidelity import energy, other_columns, regularised, unexplained


@dataclass(frozen=True)
class Blocked:
    """A consumer without its columns of no unit, which only explain part of the others.

    Attributes:
        weight: (units, k, m), scaled so that the errors of all consumers add up to the mean relative error.
        second: (units · k, units · k), what the columns of no unit do not explain; positive definite. A unit
            of fewer columns than others is filled up with columns that are independent of all and weigh
            nothing.
    """

    weight: Tensor
    second: Tensor

    @property
    def block(self) -> int:
        """k, columns a unit."""
        return int(self.weight.shape[1])


def blocked(consumers: Sequence[Consumer]) -> list[Blocked]:
    """All consumers that have any energy; those that read the very same features become one."""
    alive = [(consumer, total) for consumer in consumers if (total := energy(consumer)) > 0]
    shared: dict[tuple[int, ...], list[tuple[Consumer, Tensor]]] = {}
    for consumer, total in alive:
        scaled = consumer.weight / (total * len(alive)) ** 0.5
        key = (id(consumer.second), *map(id, consumer.columns))
        shared.setdefault(key, []).append((consumer, scaled))
    return [_blocked(same[0][0], torch.cat([weight for _, weight in same])) for same in shared.values()]


def _blocked(consumer: Consumer, weight: Tensor) -> Blocked:
    index = _padded(consumer.columns)
    real = index >= 0
    owned = index[real]
    rest = other_columns(consumer.second.shape[0], owned)
    own = unexplained(regularised(consumer.second), owned, rest)
    rows = _fewest_rows(weight[:, owned], own)
    second, wide = own, rows
    if not bool(real.all()):
        positions = real.nonzero().flatten()
        second = torch.eye(len(index), dtype=torch.float64) * own.diagonal().mean()
        second[positions[:, None], positions[None, :]] = own
        wide = torch.zeros(len(rows), len(index), dtype=torch.float64)
        wide[:, positions] = rows
    units = len(consumer.columns)
    return Blocked(wide.T.reshape(units, len(index) // units, -1).contiguous(), second)


def _fewest_rows(weight: Tensor, second: Tensor) -> Tensor:
    """As many rows as columns are enough: errors depend on WᵀW alone."""
    return weight if len(weight) <= len(second) else torch.linalg.qr(weight, mode="r").R


def _padded(columns: Sequence[Tensor]) -> Tensor:
    """The columns of all units, each filled up with −1 to the longest: (units · k,)."""
    return torch.nn.utils.rnn.pad_sequence(list(columns), batch_first=True, padding_value=-1).flatten()
