"""Local search, the choice between plans, and meeting a latency."""

import random

import pytest

from sdk_pruning.budget.choice import Candidate, choose
from sdk_pruning.budget.costs import flops_costs
from sdk_pruning.budget.latency_target import TOLERANCE, meet
from sdk_pruning.budget.local_search import local_search
from sdk_pruning.budget.menus import Menu, full_widths, smallest_widths
from sdk_pruning.budget.uniform import uniform_for
from sdk_pruning.layers import Channels, Layer, Widths
from sdk_runtimes.errors import ArgumentError, PruningError

MENUS = [Menu(f"g{index}", (4, 8, 12, 16), (0.6, 0.3, 0.1, 0.0)) for index in range(4)]
LAYERS = [Layer(f"l{index}", Channels(1), Channels(0, {f"g{index}": 1}), 1.0) for index in range(4)]
COSTS = flops_costs(LAYERS)
HALF = {menu.name: 8 for menu in MENUS}


def hidden_truth(widths: Widths) -> float:
    """What the menus do not know: only the first group matters."""
    return (16 - widths["g0"]) / 16 + sum(16 - width for width in widths.values()) / 1e3


def test_the_search_finds_what_the_menus_do_not_know() -> None:
    found = local_search(MENUS, COSTS, 32.0, HALF, hidden_truth, calls=60)
    assert found.widths["g0"] == 16
    assert found.error == hidden_truth(found.widths) < found.start_error == hidden_truth(HALF)
    assert COSTS.total(found.widths) <= 32


def test_the_search_keeps_to_its_calls_and_is_deterministic() -> None:
    seen: list[Widths] = []

    def judge(widths: Widths) -> float:
        seen.append(widths)
        return hidden_truth(widths)

    first = local_search(MENUS, COSTS, 32.0, HALF, judge, calls=7)
    assert first.calls == len(seen) == 7
    assert len({tuple(widths.values()) for widths in seen}) == 7  # none is measured twice
    assert local_search(MENUS, COSTS, 32.0, HALF, hidden_truth, calls=7) == first


def test_a_search_that_finds_nothing_stays_where_it_was() -> None:
    found = local_search(MENUS, COSTS, 32.0, HALF, lambda widths: float(widths != HALF), calls=12)
    assert (found.widths, found.error, found.accepted, found.calls) == (HALF, 0.0, 0, 12)


def test_the_search_ends_when_there_is_nothing_left_to_try() -> None:
    found = local_search([MENUS[0]], COSTS, 100.0, HALF, hidden_truth, calls=50)
    assert found.widths["g0"] == 16
    assert found.calls == 3


def plan(name: str, error: float, ms: float | None = None) -> Candidate:
    return Candidate(name, {"g": 8}, error, ms)


def test_an_allocated_plan_that_is_better_and_faster_is_taken() -> None:
    found = choose(plan("allocated", 0.1, 5.0), plan("uniform", 0.2, 5.0), dense_ms=10.0, target_ms=5.0)
    assert (found.taken.name, found.other.name, found.is_faster) == ("allocated", "uniform", True)
    assert "0.1" in found.reason
    assert "0.2" in found.reason


@pytest.mark.parametrize(
    ("allocated", "reason"),
    [
        (plan("allocated", 0.3, 5.0), "no lower held-out error, 0.3 against 0.2"),
        (plan("allocated", 0.2, 5.0), "no lower held-out error"),
        (plan("allocated", float("nan"), 5.0), "no lower held-out error"),
        (plan("allocated", 0.1, 9.95), "the dense network 10 ms"),
        (plan("allocated", 0.1, 5.5), "allowed are 5.25 ms"),
    ],
)
def test_a_planted_fault_gives_the_uniform_plan_and_says_why(allocated: Candidate, reason: str) -> None:
    found = choose(allocated, plan("uniform", 0.2, 5.0), dense_ms=10.0, target_ms=5.0)
    assert found.taken.name == "uniform"
    assert reason in found.reason


def test_without_latencies_the_error_decides() -> None:
    assert choose(plan("allocated", 0.1), plan("uniform", 0.2)).taken.name == "allocated"
    assert choose(plan("allocated", 0.1), plan("uniform", 0.2)).is_faster is None
    assert choose(plan("allocated", 0.3), plan("uniform", 0.2)).taken.name == "uniform"


def test_a_plan_that_is_not_faster_says_so() -> None:
    found = choose(plan("allocated", 0.3, 5.0), plan("uniform", 0.2, 10.2), dense_ms=10.0)
    assert found.is_faster is False
    assert "not faster than the dense network" in found.reason


def device(widths: Widths) -> float:
    """Milliseconds: more than is predicted, and not in proportion."""
    return 0.7 + COSTS.total(widths) ** 0.9 * 0.2


def planned(goal_ms: float) -> dict[str, int]:
    """Uniform for a prediction that is far off."""
    menus = [Menu(menu.name, tuple(range(1, 17)), (0.0,) * 16) for menu in MENUS]
    return uniform_for(menus, COSTS, goal_ms * 10, what="milliseconds").widths


NARROWEST = {menu.name: 1 for menu in MENUS}


@pytest.mark.parametrize("target", [2.0, 3.0, 4.0, 6.0])
def test_a_latency_is_met_within_five_percent_of_what_is_measured(target: float) -> None:
    met = meet(target, planned, device, NARROWEST)
    assert met.ms == device(met.widths)
    assert abs(met.ms / target - 1) <= TOLERANCE
    assert len(met.attempts) <= 5
    assert met.attempts[-1].ms == met.ms
    assert met.attempts[0].goal_ms == target


def test_of_coarse_plans_the_slowest_that_keeps_the_target_is_taken() -> None:
    wide, narrow = full_widths(MENUS), smallest_widths(MENUS)
    met = meet(
        5.0,
        lambda goal: wide if goal > 4 else narrow,
        lambda widths: 9.0 if widths == wide else 3.0,
        narrow,
    )
    assert (met.widths, met.ms) == (narrow, 3.0)
    assert len(met.attempts) == 2


def test_a_target_below_every_prediction_is_tried_for_real() -> None:
    met = meet(1.0, planned, lambda widths: 0.98 if widths == NARROWEST else 9.0, NARROWEST)
    assert met.widths == NARROWEST


def test_a_latency_that_cannot_be_met_names_the_best() -> None:
    with pytest.raises(
        PruningError, match=rf"fastest of \d+ measured plans takes {device(NARROWEST):.4g} ms"
    ):
        meet(0.1, planned, device, NARROWEST)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan")])
def test_a_latency_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(ArgumentError, match="target_latency_ms is"):
        meet(bad, planned, device, NARROWEST)


def test_noise_in_the_measurements_does_not_keep_the_loop_from_ending() -> None:
    rng = random.Random(0)
    met = meet(4.0, planned, lambda widths: device(widths) * rng.uniform(0.97, 1.03), NARROWEST)
    assert met.ms <= 4.0 * (1 + TOLERANCE)
