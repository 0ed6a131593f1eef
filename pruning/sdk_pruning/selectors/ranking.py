"""From scores of single units to an order."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.fidelity import curve, energy, regularised, round_units


def order_by(scores: Tensor, rows: Rows) -> list[int]:
    """Units by rising score; with rows, the r-th lowest of every row leaves in round r. Ties by index."""
    order: list[int] = torch.argsort(scores, stable=True).tolist()
    if rows is None:
        return order
    round_units(len(order), rows)
    met = dict.fromkeys(rows, 0)
    rounds: list[list[int]] = [[] for _ in range(rows.count(rows[0]) if rows else 0)]
    for unit in order:
        rounds[met[rows[unit]]].append(unit)
        met[rows[unit]] += 1
    return [unit for members in rounds for unit in members]


def curve_by(scores: Tensor, consumers: Sequence[Consumer], rows: Rows) -> Curve:
    """The curve of units that leave by rising score."""
    return curve(consumers, order_by(scores, rows), rows)


def mean_scores(consumers: Sequence[Consumer], score: Callable[[Consumer], Tensor]) -> Tensor:
    """The mean over consumers of what they say of each unit, (units,), each relative to its own energy."""
    total = torch.zeros(len(consumers[0].columns), dtype=torch.float64)
    for consumer in consumers:
        if (own := energy(consumer)) > 0:
            total += score(consumer) / (own * len(consumers))
    return total


def by_unit(columns_score: Tensor, consumer: Consumer) -> Tensor:
    """Sums over the columns of every unit: (…, N) -> (…, units)."""
    result = torch.zeros(*columns_score.shape[:-1], len(consumer.columns), dtype=columns_score.dtype)
    owner = torch.repeat_interleave(
        torch.arange(len(consumer.columns)), torch.tensor([len(columns) for columns in consumer.columns])
    )
    return result.index_add_(-1, owner, columns_score[..., torch.cat(consumer.columns)])


def saliency(consumer: Consumer) -> Tensor:
    """E⟨Y_c, A_ci⟩ = (Q_c 1)_i, (m, units): the paper's score of a component for an output (appendix D.2)."""
    weight = consumer.weight
    return by_unit(weight * (weight @ regularised(consumer.second)), consumer)


def own_energy(consumer: Consumer) -> Tensor:
    """E‖A_ci‖² = (Q_c)_ii, (m, units)."""
    second = regularised(consumer.second)
    parts = [
        torch.sum(consumer.weight[:, columns] @ second[columns][:, columns] * consumer.weight[:, columns], 1)
        for columns in consumer.columns
    ]
    return torch.stack(parts, 1)
