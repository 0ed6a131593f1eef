"""The plan that removes the same share of every group."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sdk_pruning.budget.costs import Costs
from sdk_pruning.budget.menus import Menu, full_widths, smallest_widths
from sdk_runtimes.errors import ArgumentError, PruningError


@dataclass(frozen=True)
class Uniform:
    """A uniform plan.

    Attributes:
        widths: group -> units kept.
        ratio: share of units removed that was asked for, or that the target led to.
        cost: at these widths; NaN where a ratio was asked for.
    """

    widths: dict[str, int]
    ratio: float
    cost: float = math.nan


def check_ratio(ratio: float) -> float:
    """The ratio, if it is one.

    Raises:
        ArgumentError: outside 0 … 1, 1 excluded, or not a number.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
        raise ArgumentError(
            f"ratio is {ratio!r}",
            why="it is the share of channels removed in every prunable group: from 0 up to, not including, 1",
            fix="ratio=0.3 removes 30 %",
        )
    return float(ratio)


def uniform_widths(menus: Sequence[Menu], ratio: float) -> dict[str, int]:
    """Every group as near to (1 − ratio) of its units as is legal; of two equally near widths the larger.

    Raises:
        ArgumentError: a ratio out of range.
    """
    kept = 1 - check_ratio(ratio)
    return {menu.name: menu.nearest(menu.units * kept) for menu in menus}


def uniform_for(menus: Sequence[Menu], costs: Costs, target: float, *, what: str = "FLOPs") -> Uniform:
    """The uniform plan whose cost comes nearest to a target from below.

    The plan changes at finitely many ratios only, so these are bisected, and the result is exact. Groups of
    one size change at the same ratio; where all of them together would overshoot, as many of them as fit keep
    the wider width, in the order of `menus`.

    Args:
        menus: the groups.
        costs: falls as widths fall.
        target: most that the plan may cost, in the unit of `costs`.
        what: the unit, for the message.

    Raises:
        PruningError: the narrowest widths cost more; names what can be reached.
    """
    ratios = _plans(menus)
    # Cost falls as the ratio rises, so what it leaves of the target rises.
    first = bisect_left(ratios, 0.0, key=lambda ratio: target - costs.total(uniform_widths(menus, ratio)))
    if first == len(ratios):
        raise unreachable(menus, costs, target, what)
    widths = uniform_widths(menus, ratios[first])
    if first:
        widths = _widened(menus, costs, target, widths, uniform_widths(menus, ratios[first - 1]))
    return Uniform(widths, ratios[first], costs.total(widths))


def unreachable(menus: Sequence[Menu], costs: Costs, target: float, what: str) -> PruningError:
    """The refusal of a target below the cost of the narrowest plan; names the best that can be reached."""
    dense, least = costs.total(full_widths(menus)), costs.total(smallest_widths(menus))
    return PruningError(
        f"{what} cannot be brought down to {target:.6g} ({target / dense:.1%} of dense)",
        why=f"with every group at its narrowest width {least:.6g} ({least / dense:.1%} of dense) remain",
        fix=f"ask for {least / dense:.3f} of dense or more, protect less, or lower round_to",
    )


def _plans(menus: Sequence[Menu]) -> list[float]:
    """One ratio for every plan that rounding can give, ascending; the first is 0 (nothing removed)."""
    switches = {1 - (low + high) / 2 / menu.units for menu in menus for low, high in pairwise(menu.widths)}
    ordered = [*sorted(switches), 1.0]
    return [0.0] + [(low + high) / 2 for low, high in pairwise(ordered)]


def _widened(
    menus: Sequence[Menu], costs: Costs, target: float, narrow: dict[str, int], wide: dict[str, int]
) -> dict[str, int]:
    widths = dict(narrow)
    for menu in menus:
        trial = {**widths, menu.name: wide[menu.name]}
        if trial != widths and costs.total(trial) <= target:
            widths = trial
    return widths
