"""Small moves under the true cost: what the linearised knapsack leaves over."""

from collections.abc import Iterator, Sequence

from sdk_pruning.budget.costs import Costs
from sdk_pruning.budget.menus import Menu
from sdk_pruning.layers import Widths

_MOST_MOVES = 1000

Step = tuple[int, float, float]
"""To which width, by how much the error rises, by how much the cost rises."""


def improved(menus: Sequence[Menu], costs: Costs, target: float, widths: Widths) -> dict[str, int]:
    """A plan within the target near to another one, with an expected error that no small move lowers.

    Moves are: one group wider, or one narrower and another wider. A plan that costs too much is first
    narrowed where that costs the least error for what it saves.

    Args:
        menus: the groups.
        costs: of the layers.
        target: most that the plan may cost; the narrowest widths must be within it.
        widths: where to begin.
    """
    plan = _narrowed(menus, costs, target, dict(widths))
    for _ in range(_MOST_MOVES):
        move = next(helpful_moves(menus, costs, plan, target - costs.total(plan)), None)
        if move is None:
            break
        plan |= move
    return plan


def helpful_moves(
    menus: Sequence[Menu], costs: Costs, plan: Widths, slack: float
) -> Iterator[dict[str, int]]:
    """Affordable moves that lower the expected error, the most helpful first.

    Args:
        menus: the groups.
        costs: of the layers.
        plan: the widths now.
        slack: by how much the cost may rise.
    """
    ups = {menu.name: step for menu in menus if (step := _wider(menu, costs, plan))}
    downs = {menu.name: step for menu in menus if (step := _narrower(menu, costs, plan))}
    gains: list[tuple[float, str, str]] = [(step[1], wider, "") for wider, step in ups.items()]
    gains += [
        (up[1] + down[1], wider, narrower)
        for wider, up in ups.items()
        for narrower, down in downs.items()
        if wider != narrower
    ]
    for gain, wider, narrower in sorted(gains):
        if gain >= 0:
            return
        move = {wider: ups[wider][0]}
        apart = ups[wider][2]
        if narrower:
            move[narrower] = downs[narrower][0]
            apart += downs[narrower][2]
        if (costs.change(plan, move) if narrower and costs.meet(wider, narrower) else apart) <= slack:
            yield move


def _narrowed(menus: Sequence[Menu], costs: Costs, target: float, plan: dict[str, int]) -> dict[str, int]:
    while costs.total(plan) > target:
        steps = [
            (step[1] / -step[2], menu.name, step[0])
            for menu in menus
            if (step := _narrower(menu, costs, plan))
        ]
        if not steps:  # no step alone saves anything: all together do, as the narrowest plan is within
            return {menu.name: menu.widths[0] for menu in menus}
        _, name, width = min(steps)
        plan = {**plan, name: width}
    return plan


def _steps_down(menu: Menu, costs: Costs, plan: Widths) -> Iterator[Step]:
    now = plan[menu.name]
    for width in reversed(menu.widths[: menu.widths.index(now)]):
        yield width, menu.error(width) - menu.error(now), costs.change(plan, {menu.name: width})


def _narrower(menu: Menu, costs: Costs, plan: Widths) -> Step | None:
    """The next narrower width that costs less: latencies have plateaus."""
    return next((step for step in _steps_down(menu, costs, plan) if step[2] < 0), None)


def _wider(menu: Menu, costs: Costs, plan: Widths) -> Step | None:
    now = plan[menu.name]
    index = menu.widths.index(now) + 1
    if index == len(menu.widths):
        return None
    width = menu.widths[index]
    return width, menu.error(width) - menu.error(now), costs.change(plan, {menu.name: width})
