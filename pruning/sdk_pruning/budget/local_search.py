"""Moves judged by the error of the whole pruned network, which the sum over groups only estimates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdk_pruning.budget.costs import Costs
from sdk_pruning.budget.menus import Menu
from sdk_pruning.layers import Widths

Error = Callable[[Widths], float]
"""Widths -> held-out error of the network pruned to them; expensive."""


@dataclass(frozen=True)
class Searched:
    """The end of a local search.

    Attributes:
        widths: group -> units kept.
        error: measured at these widths.
        start_error: measured where the search began.
        calls: how often the error was measured.
        accepted: moves that were taken.
    """

    widths: dict[str, int]
    error: float
    start_error: float
    calls: int
    accepted: int


def local_search(
    menus: Sequence[Menu], costs: Costs, target: float, start: Widths, measure: Error, *, calls: int = 24
) -> Searched:
    """Takes a step in one group back and one in another further, as long as the measured error falls.

    Moves are tried in the order of what the menus expect of them; one that failed is not tried again until
    another succeeded. First improvement, deterministic.

    Args:
        menus: the groups.
        costs: of the layers.
        target: most that a plan may cost.
        start: a plan within the target.
        measure: the judge.
        calls: at most so many measurements, the first of them at `start`.
    """
    widths, error = dict(start), measure(start)
    start_error, used, accepted = error, 1, 0
    tried = {_as_key(widths)}
    while used < calls:
        candidate = _next_untried(menus, costs, target, widths, tried)
        if candidate is None:
            break
        tried.add(_as_key(candidate))
        found = measure(candidate)
        used += 1
        if found < error:
            widths, error, accepted = candidate, found, accepted + 1
    return Searched(widths, error, start_error, used, accepted)


def _next_untried(
    menus: Sequence[Menu], costs: Costs, target: float, widths: Widths, tried: set[tuple[int, ...]]
) -> dict[str, int] | None:
    slack = target - costs.total(widths)
    for move in _ranked(menus, widths):
        candidate = {**widths, **move}
        if _as_key(candidate) not in tried and costs.change(widths, move) <= slack:
            return candidate
    return None


def _ranked(menus: Sequence[Menu], widths: Widths) -> list[dict[str, int]]:
    """One step up, alone or with one down elsewhere; the least expected rise of the error first."""
    ups = _steps(menus, widths, +1)
    downs = _steps(menus, widths, -1)
    moves = [(change, {name: width}) for name, width, change in ups]
    moves += [
        (up_change + down_change, {up: up_width, down: down_width})
        for up, up_width, up_change in ups
        for down, down_width, down_change in downs
        if up != down
    ]
    return [move for _, move in sorted(moves, key=lambda item: item[0])]


def _steps(menus: Sequence[Menu], widths: Widths, by: int) -> list[tuple[str, int, float]]:
    """(group, its next width up or down, expected rise of the error)."""
    found = []
    for menu in menus:
        now = menu.widths.index(widths[menu.name])
        if 0 <= now + by < len(menu.widths):
            found.append((menu.name, menu.widths[now + by], menu.errors[now + by] - menu.errors[now]))
    return found


def _as_key(widths: Widths) -> tuple[int, ...]:
    return tuple(widths[name] for name in sorted(widths))
