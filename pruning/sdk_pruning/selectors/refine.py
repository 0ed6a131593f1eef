"""Exchanges one unit that went for one that stayed, as long as the error falls: for one width, after `obs`.

An order is nested: what was right to remove early is not always right at the width that is chosen in the end.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.fidelity import cholesky, round_units
from sdk_pruning.selectors.blocks import Blocked, blocked

_LEAST_GAIN = 1e-3
"""An exchange must lower the error by this share of it; smaller ones are many and worth nothing."""


def refined(
    consumers: Sequence[Consumer], curve: Curve, rounds: int, rows: Rows = None, *, swaps: int | None = None
) -> tuple[int, ...]:
    """The units to remove after some rounds of a curve, improved by exchanges.

    Args:
        consumers: those of the curve.
        curve: of a selector.
        rounds: how many rounds of it to remove.
        rows: those of the curve; units are exchanged within a row.
        swaps: at most so many exchanges; None: a quarter of the units.

    Returns:
        As many units as `curve.removed(rounds)`, sorted.

    Raises:
        ArgumentError: rows of different lengths.
    """
    removed = curve.removed(rounds)
    kept = [unit for unit in range(len(curve.order)) if unit not in set(removed)]
    staying = set(refine(consumers, kept, rows, swaps=swaps))
    return tuple(unit for unit in range(len(curve.order)) if unit not in staying)


def refine(
    consumers: Sequence[Consumer], kept: Sequence[int], rows: Rows = None, *, swaps: int | None = None
) -> tuple[int, ...]:
    """The kept units after exchanges of one kept and one removed unit, each time the best of all pairs.

    Args:
        consumers: the layers that read the units.
        kept: units that stay.
        rows: unit -> row; units are exchanged within a row.
        swaps: at most so many exchanges; None: a quarter of the units.

    Returns:
        As many units, sorted; their error is never larger.

    Raises:
        ArgumentError: rows of different lengths.
    """
    units = len(consumers[0].columns)
    round_units(units, rows)
    parts = blocked(consumers)
    inside = sorted(kept)
    outside = [unit for unit in range(units) if unit not in set(kept)]
    if not parts or not inside or not outside:
        return tuple(inside)
    for _ in range(units // 4 if swaps is None else swaps):
        views = [_View(part, torch.tensor(inside), torch.tensor(outside)) for part in parts]
        change = _within_rows(
            sum((view.changes() for view in views), torch.tensor(0.0)), inside, outside, rows
        )
        best = int(change.argmin())
        if -float(change.flatten()[best]) <= _LEAST_GAIN * sum(view.error() for view in views):
            break
        j, i = divmod(best, len(outside))
        inside[j], outside[i] = outside[i], inside[j]
    return tuple(sorted(inside))


def _within_rows(change: Tensor, inside: list[int], outside: list[int], rows: Rows) -> Tensor:
    if rows is None:
        return change
    row = torch.tensor(rows)
    return change.masked_fill(row[inside][:, None] != row[outside][None, :], torch.inf)


class _View:
    """One consumer, seen from kept units K and removed units R.

    P = S_KK⁻¹, A = P S_KR, W the compensated weights, D and B the moments of what K leaves of u_R, with
    itself and with the lost output. e_j is what the others of K leave of u_j, with E e_j e_jᵀ = P_jj⁻¹:
    without j, what is left of u_i grows by A_jiᵀ e_j and the lost output by W_jᵀ e_j.
    """

    def __init__(self, part: Blocked, kept: Tensor, removed: Tensor) -> None:
        size = part.block
        k, r = _columns(kept, size), _columns(removed, size)
        cross = part.second[k][:, r]
        root = cholesky(part.second[k][:, k])
        explained = torch.cholesky_solve(cross, root)
        rest = part.second[r][:, r] - cross.T @ explained
        self._lost_weight = part.weight[removed].flatten(0, 1)
        self._lost = rest @ self._lost_weight
        weight = part.weight[kept].flatten(0, 1) + explained @ self._lost_weight
        self._own = torch.linalg.inv(_diagonal(torch.cholesky_inverse(root), size))
        self._rest = _diagonal(rest, size)
        self._weight = weight.view(len(kept), size, -1)
        self._mix = _pairs(explained, size)

    def error(self) -> float:
        """tr(W_R D W_Rᵀ)."""
        return float(torch.sum(self._lost * self._lost_weight))

    def changes(self) -> Tensor:
        """Change of the error when j goes and i comes back, (kept, removed)."""
        size = self._own.shape[1]
        pulled = self._own @ self._weight
        cost = torch.sum(pulled * self._weight, (1, 2))
        lost = self._lost.view(len(self._rest), size, -1)
        grown = self._mix.transpose(2, 3) @ _pairs(pulled.flatten(0, 1) @ self._lost.T, size)
        around = self._mix.transpose(2, 3) @ (pulled @ pulled.transpose(1, 2))[:, None] @ self._mix
        numerator = lost @ lost.transpose(1, 2) + grown + grown.transpose(2, 3) + around
        denominator = self._rest + self._mix.transpose(2, 3) @ self._own[:, None] @ self._mix
        return cost[:, None] - _trace_of_quotient(numerator, denominator)


def _trace_of_quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """tr(D⁻¹ N) of pairs of blocks, (…, k, k) -> (…)."""
    if numerator.shape[-1] == 1:
        return (numerator / denominator)[..., 0, 0]
    return torch.sum(torch.linalg.inv(denominator) * numerator, (-2, -1))


def _columns(units: Tensor, size: int) -> Tensor:
    return (units[:, None] * size + torch.arange(size)).flatten()


def _pairs(matrix: Tensor, size: int) -> Tensor:
    """(a · k, b · k) -> (a, b, k, k)."""
    rows, columns = len(matrix) // size, matrix.shape[1] // size
    return matrix.view(rows, size, columns, size).transpose(1, 2)


def _diagonal(matrix: Tensor, size: int) -> Tensor:
    """(a · k, a · k) -> (a, k, k)."""
    return _pairs(matrix, size).diagonal(dim1=0, dim2=1).movedim(-1, 0)
