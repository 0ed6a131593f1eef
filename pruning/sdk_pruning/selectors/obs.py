"""Greedy backward selection that knows correlation: structured optimal brain surgeon (ZipLM, 2302.04089)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.fidelity import cholesky, curve, round_units
from sdk_pruning.selectors.blocks import Blocked, blocked

_PENDING = 64
"""Columns of P's update that are kept aside before one matrix product applies them: memory traffic is what
costs."""


def obs(consumers: Sequence[Consumer], rows: Rows = None, seed: int = 0) -> Curve:  # noqa: ARG001 - a Selector
    """Removes again and again the unit whose loss the others can make up for best.

    With P = S⁻¹ over the units that are left and W compensated so far, losing block i costs tr(W_i P_ii⁻¹
    W_iᵀ) exactly; then W ← W − W_i P_ii⁻¹ P_i and P ← P − P_i P_ii⁻¹ P_i. Costs of all consumers add up. With
    rows, every row loses its cheapest unit in a round, the cheapest row first.

    Raises:
        ArgumentError: rows of different lengths.
    """
    return curve(consumers, _greedy_order(blocked(consumers), len(consumers[0].columns), rows), rows)


def _greedy_order(parts: Sequence[Blocked], units: int, rows: Rows) -> list[int]:
    states = [Elimination(part) for part in parts]
    per_round = round_units(units, rows)
    row = torch.arange(units) if rows is None else torch.tensor(rows, dtype=torch.int64)
    gone = torch.zeros(units, dtype=torch.bool)
    served = gone.clone()
    order: list[int] = []
    while len(order) < units:
        cost = sum((state.costs() for state in states), torch.zeros(units, dtype=torch.float64))
        unit = int(cost.masked_fill(gone | served, torch.inf).argmin())
        order.append(unit)
        gone[unit] = True
        served = served.zero_() if len(order) % per_round == 0 else served | (row == row[unit])
        for state in states:
            state.remove_(unit)
    return order


class Elimination:
    """W and P of one consumer while units leave.

    P's columns are brought up to date only when they are needed, and all of P once `_PENDING` columns wait;
    it then shrinks to the units that are left. Its diagonal blocks are always up to date.
    """

    def __init__(self, part: Blocked) -> None:
        units, self._block, _ = part.weight.shape
        self._units = units
        self._left = torch.arange(units)
        self._position = list(range(units))
        self._weight = part.weight.clone()
        self._inverse = torch.cholesky_inverse(cholesky(part.second))
        self._diagonal = _diagonal_blocks(self._inverse, self._block)
        self._pending = self._no_columns()
        self._gone: list[int] = []

    def costs(self) -> Tensor:
        """What losing each unit costs now, (units,); no meaning for units that are gone."""
        if self._block == 1:
            cost = self._weight.square().sum((1, 2)) / self._diagonal[:, 0, 0]
        else:
            grams = self._weight @ self._weight.transpose(1, 2)
            cost = torch.sum(torch.linalg.inv(self._diagonal) * grams, (1, 2))
        return torch.zeros(self._units, dtype=torch.float64).index_copy_(0, self._left, cost)

    def remove_(self, unit: int) -> None:
        """The unit leaves; the others take over what they can."""
        position, size = self._position[unit], self._block
        own = slice(position * size, (position + 1) * size)
        columns = self._inverse[:, own] - self._pending @ self._pending[own].T
        half = torch.linalg.cholesky(self._diagonal[position])
        factor = torch.linalg.solve_triangular(half.T, columns, upper=True, left=False)
        white = torch.linalg.solve_triangular(half, self._weight[position], upper=False)
        flat = self._weight.view(len(factor), -1)
        flat.addmm_(factor, white, alpha=-1)
        blocks = factor.view(-1, size, size)
        self._diagonal -= blocks @ blocks.transpose(1, 2)
        self._gone.append(position)
        self._diagonal[self._gone] = torch.eye(size, dtype=torch.float64)
        self._pending = torch.cat([self._pending, factor], 1)
        if self._pending.shape[1] >= _PENDING:
            self._settle_()

    def _settle_(self) -> None:
        """Applies what is pending and forgets the units that are gone."""
        keep = torch.ones(len(self._left), dtype=torch.bool)
        keep[self._gone] = False
        columns = keep.repeat_interleave(self._block)
        pending = self._pending[columns]
        self._inverse = self._inverse[columns][:, columns].addmm_(pending, pending.T, alpha=-1)
        self._left, self._weight, self._diagonal = self._left[keep], self._weight[keep], self._diagonal[keep]
        for position, unit in enumerate(self._left.tolist()):
            self._position[unit] = position
        self._pending, self._gone = self._no_columns(), []

    def _no_columns(self) -> Tensor:
        return torch.empty(len(self._inverse), 0, dtype=torch.float64)


def _diagonal_blocks(matrix: Tensor, size: int) -> Tensor:
    """(n · k, n · k) -> (n, k, k)."""
    count = len(matrix) // size
    return matrix.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
