"""Widths for a latency: layers timed on the target, error per width, knapsack, local search, measurements.

A plan that the table predicts is built and timed; the prediction is corrected until the measured network is
within 5 % of the goal. The uniform plan goes through the same, and is what is returned unless the allocated
one has the lower error on held-out samples and really is faster.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sdk_pruning.adapting import changes_of
from sdk_pruning.budget.allocation import allocate
from sdk_pruning.budget.choice import Candidate, choose
from sdk_pruning.budget.latency_table import LatencyTable, fitted, measure_table
from sdk_pruning.budget.latency_target import TOLERANCE, Met, meet
from sdk_pruning.budget.local_search import local_search
from sdk_pruning.budget.menus import Menu, smallest_widths
from sdk_pruning.budget.uniform import uniform_for, uniform_widths
from sdk_pruning.carrying_out import Method, Outcome, carry_out, dense_curves
from sdk_pruning.checking import cut_copy
from sdk_pruning.layers import Widths
from sdk_pruning.metering import Meter
from sdk_pruning.removal import removal_of
from sdk_pruning.sketch import Sketch, measured_menus
from sdk_pruning.study import Study

if TYPE_CHECKING:
    from sdk_pruning.budget.costs import Costs

SEARCHES = 16
"""Moves that the local search tries; each takes about a second on a small network."""

Progress = Callable[[str, int, int], None]


def for_latency(
    about: Study,
    target_ms: float,
    method: Method,
    menus: list[Menu],
    with_errors: Callable[..., list[Menu]],
    block: int,
    meter: Meter,
    tell: Progress,
) -> tuple[Outcome, str]:
    """A pruned network that takes at most 5 % more than a latency, and why it has these widths.

    Args:
        about: the dense network.
        target_ms: the goal.
        method: selector and compensation.
        menus: legal widths.
        with_errors: makes them from selection curves.
        block: channels of a vector.
        meter: times networks.
        tell: told (stage, done, total).

    Raises:
        PruningError: the goal cannot be met; names the best that can.
    """
    if target_ms >= meter.dense_ms:
        kept = carry_out(about, about.full, method, progress=tell)
        return kept, f"nothing is cut: the dense network takes {meter.dense_ms:.4g} ms already"
    stopwatch = _Stopwatch(about, meter)
    tell("timing layers", 0, 1)
    table = measure_table(about.layers, about.full, meter.layers, block=block)
    half = uniform_widths(menus, 0.5)
    table = fitted(table, [(about.full, meter.dense_ms), (half, stopwatch.ms(half))])
    narrowest = smallest_widths(menus)
    tell("meeting the latency", 0, 2)
    even = meet(
        target_ms,
        lambda goal_ms: uniform_for(menus, table.costs(), goal_ms, what="milliseconds").widths,
        stopwatch.ms,
        narrowest,
    )
    tell("selecting", 0, 1)
    dense = dense_curves(about, method.selector, method.seed)
    sketch = Sketch(about, dense.curves, dense.fits)
    priced = measured_menus(with_errors(dense.curves), dense.curves, sketch, about.full, tell)
    tell("meeting the latency", 1, 2)
    shared = meet(
        target_ms,
        lambda goal_ms: allocate(priced, table.costs(), goal_ms, what="milliseconds").widths,
        stopwatch.ms,
        smallest_widths(priced),
    )
    tell("searching", 0, 1)
    widths = _searched(priced, table, shared, sketch, stopwatch, target_ms)
    return _better(about, method, (even.widths, widths), target_ms, meter, tell)


def _searched(
    menus: list[Menu],
    table: LatencyTable,
    shared: Met,
    sketch: Sketch,
    stopwatch: "_Stopwatch",
    target_ms: float,
) -> dict[str, int]:
    """The allocated plan after local search, if that keeps the latency."""
    costs: Costs = table.costs()
    budget = costs.total(shared.widths)
    found = local_search(menus, costs, budget, shared.widths, sketch.error, calls=SEARCHES).widths
    if found != shared.widths and abs(stopwatch.ms(found) / target_ms - 1) > TOLERANCE:
        return shared.widths
    return found


def _better(
    about: Study,
    method: Method,
    plans: tuple[dict[str, int], dict[str, int]],
    target_ms: float,
    meter: Meter,
    tell: Progress,
) -> tuple[Outcome, str]:
    """Carries both plans out and measures them: error on held-out samples, latency by turns."""
    even, shared = plans
    uniform = carry_out(about, even, method, progress=tell)
    if even == shared:
        return uniform, "uniform: the allocation came out the same"
    allocated = carry_out(about, shared, method, progress=tell)
    taken = meter.networks({"uniform": uniform.model, "allocated": allocated.model})
    choice = choose(
        Candidate("allocated", shared, allocated.relative_error, taken["allocated"].ms),
        Candidate("uniform", even, uniform.relative_error, taken["uniform"].ms),
        dense_ms=meter.dense_ms,
        target_ms=target_ms,
    )
    outcome = allocated if choice.taken.name == "allocated" else uniform
    return outcome, f"{choice.taken.name}: {choice.reason}"


class _Stopwatch:
    """Milliseconds of networks of given widths; which units they keep does not matter for that."""

    def __init__(self, about: Study, meter: Meter) -> None:
        self._about, self._meter = about, meter
        self._known: dict[tuple[tuple[str, int], ...], float] = {}

    def ms(self, widths: Widths) -> float:
        """Measured, once for each plan."""
        key = tuple(sorted(widths.items()))
        if key not in self._known:
            about = self._about
            removed = {name: tuple(range(width, about.full[name])) for name, width in widths.items()}
            changes = changes_of(about.model, about.structure, removed, about.attributes)
            network = cut_copy(about.model, about.structure, removal_of(about.structure, removed), changes)
            self._known[key] = self._meter.networks({"plan": network})["plan"].ms
        return self._known[key]
