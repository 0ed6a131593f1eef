"""Meeting a latency: plan for a prediction, measure, correct the goal, again."""

from collections.abc import Callable
from dataclasses import dataclass

from sdk_pruning.layers import Widths
from sdk_runtimes.errors import ArgumentError, PruningError

TOLERANCE = 0.05
ATTEMPTS = 5

Plan = Callable[[float], dict[str, int]]
"""Predicted milliseconds -> widths within them; raises PruningError below what the narrowest plan takes."""
Measure = Callable[[Widths], float]
"""Widths -> milliseconds of the real network."""


@dataclass(frozen=True)
class Attempt:
    """One plan that was measured.

    Attributes:
        goal_ms: what it was planned for.
        widths: group -> units kept.
        ms: measured.
    """

    goal_ms: float
    widths: dict[str, int]
    ms: float


@dataclass(frozen=True)
class Met:
    """A plan that keeps a latency.

    Attributes:
        widths: group -> units kept.
        ms: measured.
        attempts: all that were measured, in order.
    """

    widths: dict[str, int]
    ms: float
    attempts: tuple[Attempt, ...]


def meet(
    target_ms: float, plan: Plan, measure: Measure, narrowest: Widths, *, attempts: int = ATTEMPTS
) -> Met:
    """The slowest measured plan that takes at most 5 % more than the target.

    Ends when one is within 5 % on either side, when a plan comes again (widths are coarse), or after some
    attempts.

    Args:
        target_ms: what the network may take.
        plan: gives widths for a predicted latency.
        measure: of the real network.
        narrowest: the widths that prune the most, for a target below every prediction.
        attempts: at most so many measurements.

    Raises:
        ArgumentError: the target is not positive.
        PruningError: nothing that was measured keeps it; names the best.
    """
    if not target_ms > 0:
        raise ArgumentError(
            f"target_latency_ms is {target_ms!r}",
            why="a network takes some time",
            fix="pass milliseconds, less than the dense network takes",
        )
    done: list[Attempt] = []
    goal = target_ms
    while len(done) < attempts:
        widths = _planned(plan, goal, narrowest)
        if any(widths == each.widths for each in done):
            break
        done.append(Attempt(goal, widths, measure(widths)))
        if abs(done[-1].ms / target_ms - 1) <= TOLERANCE:
            break
        goal *= target_ms / done[-1].ms
    kept = [each for each in done if each.ms <= target_ms * (1 + TOLERANCE)]
    if not kept:
        raise _not_met(target_ms, done)
    best = max(kept, key=lambda each: each.ms)
    return Met(best.widths, best.ms, tuple(done))


def _planned(plan: Plan, goal_ms: float, narrowest: Widths) -> dict[str, int]:
    try:
        return plan(goal_ms)
    except PruningError:  # a prediction; what the narrowest plan really takes decides
        return dict(narrowest)


def _not_met(target_ms: float, done: list[Attempt]) -> PruningError:
    fastest = min(done, key=lambda each: each.ms)
    return PruningError(
        f"a latency of {target_ms:.4g} ms cannot be met",
        why=f"the fastest of {len(done)} measured plans takes {fastest.ms:.4g} ms",
        fix=f"target_latency_ms={fastest.ms * 1.01:.4g}, protect less, or another target or device",
    )
