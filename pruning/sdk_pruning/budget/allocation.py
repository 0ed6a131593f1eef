"""The plan with the least expected error within a budget.

A multiple-choice knapsack: one width of every group, least sum of errors, cost within the target. The cost
is bilinear (a layer's input group times its output group), so it is linearised about a plan, solved by
dynamic programming over the frontier of (cost, error), improved under the true cost, and linearised anew
about the result, until nothing improves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdk_pruning.budget.costs import Costs
from sdk_pruning.budget.exchange import improved
from sdk_pruning.budget.menus import Menu, full_widths, smallest_widths, total_error
from sdk_pruning.budget.uniform import uniform_for, unreachable
from sdk_pruning.layers import Widths

_STATES = 512  # points of the frontier that are kept; thinned evenly in cost above that
_ITERATIONS = 4

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Allocation:
    """A plan within a budget.

    Attributes:
        widths: group -> units kept.
        error: sum of the expected errors.
        cost: in the unit of the costs.
    """

    widths: dict[str, int]
    error: float
    cost: float


def allocate(menus: Sequence[Menu], costs: Costs, target: float, *, what: str = "FLOPs") -> Allocation:
    """The best plan that is found; never worse in expected error than the uniform plan.

    Exact where the costs of the groups add up and the frontier has at most 512 points. Deterministic.

    Args:
        menus: the groups.
        costs: of the layers.
        target: most that the plan may cost.
        what: the unit of the costs, for the message.

    Raises:
        PruningError: the narrowest widths cost more; names what can be reached.
    """
    if costs.total(smallest_widths(menus)) > target:
        raise unreachable(menus, costs, target, what)
    start = uniform_for(menus, costs, target, what=what).widths
    best = _judged(menus, costs, improved(menus, costs, target, start))
    seen: list[Widths] = []
    for about in (start, full_widths(menus)):
        best = _descended(menus, costs, target, about, best, seen)
    return best


def _descended(
    menus: Sequence[Menu], costs: Costs, target: float, about: Widths, best: Allocation, seen: list[Widths]
) -> Allocation:
    """Linearises, solves and improves while that helps; `seen` are the solutions there were already."""
    for _ in range(_ITERATIONS):
        solved = knapsack(menus, _linearised(menus, costs, about), target - costs.total(about))
        if (
            solved is None or solved in seen
        ):  # None: from here the linear model sees nothing within the budget
            return best
        seen.append(solved)
        found = _judged(menus, costs, improved(menus, costs, target, solved))
        if found.error >= best.error:
            return best
        best, about = found, found.widths
    return best


def _judged(menus: Sequence[Menu], costs: Costs, widths: dict[str, int]) -> Allocation:
    return Allocation(widths, total_error(menus, widths), costs.total(widths))


def _linearised(menus: Sequence[Menu], costs: Costs, about: Widths) -> list[Floats]:
    """For every group, by how much each of its widths alone changes the cost."""
    return [np.array([costs.change(about, {menu.name: width}) for width in menu.widths]) for menu in menus]


def knapsack(menus: Sequence[Menu], prices: Sequence[Floats], budget: float) -> dict[str, int] | None:
    """One width of every group, least sum of errors, sum of prices within the budget; None if none fits.

    Dynamic programming over the frontier of (price, error) that no other choice beats in both.

    Args:
        menus: the groups.
        prices: one array a group, one price a width; may be negative.
        budget: most that the prices may sum up to.
    """
    slack = 1e-9 * (abs(budget) + sum(float(np.abs(each).max()) for each in prices))
    cheapest_rest = np.cumsum([0.0, *(float(each.min()) for each in reversed(prices))])[::-1]
    price, error = np.zeros(1), np.zeros(1)
    trail: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
    for done, (menu, own) in enumerate(zip(menus, prices, strict=True), 1):
        price = (price[:, None] + own[None, :]).ravel()
        error = (error[:, None] + np.array(menu.errors)[None, :]).ravel()
        kept = _frontier(price, error, budget - float(cheapest_rest[done]) + slack)
        if not kept.size:
            return None
        trail.append((kept // len(own), kept % len(own)))
        price, error = price[kept], error[kept]
    return _traced(menus, trail, int(np.argmin(error)))


def _frontier(price: Floats, error: Floats, most: float) -> npt.NDArray[np.intp]:
    """Indices of what is affordable and beaten by nothing, ascending in price, at most `_STATES`."""
    affordable = np.flatnonzero(price <= most)
    ordered = affordable[np.lexsort((error[affordable], price[affordable]))]
    if not ordered.size:
        return ordered
    best_before = np.minimum.accumulate(np.concatenate(([np.inf], error[ordered][:-1])))
    kept = ordered[error[ordered] < best_before]
    if kept.size <= _STATES:
        return kept
    low, high = price[kept[0]], price[kept[-1]]
    buckets = ((price[kept] - low) / (high - low) * (_STATES - 2)).astype(int)
    last = np.flatnonzero(np.diff(buckets, append=-1))  # of a bucket the one with the least error
    thinned: npt.NDArray[np.intp] = kept[np.union1d(last, [0])]
    return thinned


def _traced(
    menus: Sequence[Menu], trail: Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]], state: int
) -> dict[str, int]:
    widths = {}
    for menu, (parents, chosen) in zip(reversed(menus), reversed(trail), strict=True):
        widths[menu.name] = menu.widths[int(chosen[state])]
        state = int(parents[state])
    return {menu.name: widths[menu.name] for menu in menus}
