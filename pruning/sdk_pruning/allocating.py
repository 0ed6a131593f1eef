"""Decides how many units each group keeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sdk_pruning.budget.allocation import allocate
from sdk_pruning.budget.choice import Candidate, choose
from sdk_pruning.budget.costs import flops_costs
from sdk_pruning.budget.menus import Menu, full_widths, group_menu, menu_of
from sdk_pruning.budget.rounding import resolve_round_to, unit_step
from sdk_pruning.budget.uniform import uniform_for, uniform_widths
from sdk_pruning.carrying_out import Method, Outcome, carry_out, dense_curves
from sdk_pruning.components import Curve
from sdk_pruning.goals import Goal
from sdk_pruning.latency_goal import for_latency
from sdk_pruning.metering import Meter
from sdk_pruning.sketch import Sketch, measured_menus
from sdk_pruning.study import Study
from sdk_runtimes.errors import PruningError

COARSEST = 1 / 12
"""For a ratio, a step that "auto" chose is at most this share of the group: the ratio comes first."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Decided:
    """A pruned network, and why it has these widths.

    Attributes:
        outcome: carried out.
        reason: for the report.
    """

    outcome: Outcome
    reason: str


def decide(
    about: Study, goal: Goal, method: Method, round_to: int | str, meter: Meter | None, tell: Progress
) -> Decided:
    """Finds widths for a goal and carries them out.

    Raises:
        PruningError: the goal cannot be met; names what can.
    """
    if goal.ratio is not None:
        widths = uniform_widths(_ratio_menus(about, round_to, meter), goal.ratio)
        return Decided(carry_out(about, widths, method, progress=tell), "uniform, as a ratio asks for")
    if goal.flops is not None:
        return _for_flops(about, goal.flops, method, round_to, meter, tell)
    assert goal.latency_ms is not None, "a goal is one of three"
    assert meter is not None, "checked before"
    block = resolve_round_to(round_to, meter.device)
    outcome, reason = for_latency(
        about,
        goal.latency_ms,
        method,
        budget_menus(about, block),
        partial(budget_menus, about, block),
        block,
        meter,
        tell,
    )
    return Decided(outcome, reason)


def _device(meter: Meter | None) -> str:
    return meter.device if meter is not None else "cpu"


def _ratio_menus(about: Study, round_to: int | str, meter: Meter | None) -> list[Menu]:
    block = resolve_round_to(round_to, _device(meter))
    menus = []
    for name, units in about.full.items():
        step = unit_step(units, block, channels=_channels(about, name))
        while isinstance(round_to, str) and step > 1 and step > units * COARSEST:
            step = step // 2
        menus.append(menu_of(name, units, step))
    return menus


def _channels(about: Study, name: str) -> int:
    """Channels that one unit brings to the widest axis that it is on."""
    counts = [
        side.per_unit[name]
        for layer in about.layers
        for side in (layer.inputs, layer.outputs)
        if name in side.per_unit
    ]
    return max(counts, default=1)


def budget_menus(about: Study, block: int, curves: Mapping[str, Curve] | None = None) -> list[Menu]:
    """Legal widths of all groups, with errors where there are curves."""
    return [
        group_menu(
            name, units, block, curve=curves[name] if curves else None, channels=_channels(about, name)
        )
        for name, units in about.full.items()
    ]


def _for_flops(
    about: Study, share: float, method: Method, round_to: int | str, meter: Meter | None, tell: Progress
) -> Decided:
    block = resolve_round_to(round_to, _device(meter))
    costs = flops_costs(about.layers)
    try:
        plain = budget_menus(about, block)
        target = share * costs.total(full_widths(plain))
        even = uniform_for(plain, costs, target)
    except PruningError:
        if not isinstance(round_to, str) or block == 1:
            raise
        block = 1  # what "auto" chose stands in the way of the goal
        plain = budget_menus(about, block)
        even = uniform_for(plain, costs, share * costs.total(full_widths(plain)))
    return _allocated(about, even.widths, share, block, method, tell)


def _allocated(
    about: Study, even: dict[str, int], share: float, block: int, method: Method, tell: Progress
) -> Decided:
    """Shares the FLOPs of a uniform plan out anew, and takes what promises the smaller error."""
    tell("selecting", 0, 1)
    dense = dense_curves(about, method.selector, method.seed)
    sketch = Sketch(about, dense.curves, dense.fits)
    menus = measured_menus(budget_menus(about, block, dense.curves), dense.curves, sketch, about.full, tell)
    costs = flops_costs(about.layers)
    target = share * costs.total(about.full)
    start = allocate(menus, costs, target).widths
    tell("comparing plans", 0, 1)
    errors = sketch.error(even) ** 0.5, sketch.error(start) ** 0.5  # as the report states errors
    found = choose(Candidate("allocated", start, errors[1]), Candidate("uniform", even, errors[0]))
    outcome = carry_out(about, found.taken.widths, method, curves=dense.curves, progress=tell)
    return Decided(outcome, f"{found.taken.name}: {found.reason}")
