"""Menus, uniform plans and allocation, against brute force."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdk_pruning.budget.allocation import allocate
from sdk_pruning.budget.costs import Costs, flops_costs
from sdk_pruning.budget.menus import Menu, full_widths, menu_of, smallest_widths, total_error
from sdk_pruning.budget.uniform import uniform_for, uniform_widths
from sdk_pruning.components import Curve
from sdk_pruning.layers import Channels, Layer, Widths, total_flops
from sdk_runtimes.errors import ArgumentError, PruningError


def chain(sizes: list[int], *, seed: int = 0, step: int = 1) -> tuple[list[Menu], list[Layer]]:
    """A stack of layers: each one's outputs are the next one's inputs. Convex errors."""
    rng = random.Random(seed)
    menus = []
    for index, size in enumerate(sizes):
        scale, power = 10 ** rng.uniform(-2, 0), rng.uniform(1.2, 4)
        widths = (*range(step, size, step), size)
        errors = tuple(scale * (1 - width / size) ** power for width in widths)
        menus.append(Menu(f"g{index}", widths, errors))
    layers = []
    for index in range(len(sizes) + 1):
        inputs = Channels(0, {f"g{index - 1}": 1}) if index else Channels(3)
        outputs = Channels(0, {f"g{index}": 1}) if index < len(sizes) else Channels(10)
        layers.append(Layer(f"l{index}", inputs, outputs, 2 * 10 ** rng.uniform(0, 2)))
    return menus, layers


def brute_force(menus: list[Menu], costs: Costs, target: float) -> float:
    """Least error of all plans within the target."""
    names = [menu.name for menu in menus]
    plans = (dict(zip(names, each, strict=True)) for each in itertools.product(*(m.widths for m in menus)))
    return min(total_error(menus, plan) for plan in plans if costs.total(plan) <= target)


CURVE = Curve(order=tuple(range(8)), error=(0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0))


def test_a_menu_takes_its_errors_from_the_curve() -> None:
    menu = menu_of("g", 8, 4, CURVE)
    assert menu == Menu("g", (4, 8), (0.5, 0.0))


def test_rounds_of_several_units_are_counted_as_rounds() -> None:
    rows = Curve(tuple(range(12)), (0.0, 0.2, 0.4, 1.0), round_units=3)
    assert menu_of("h", 12, 3, rows) == Menu("h", (3, 6, 9, 12), (1.0, 0.4, 0.2, 0.0))
    with pytest.raises(ArgumentError, match="no multiple of 3"):
        menu_of("h", 12, 4, rows)


def test_a_curve_that_ends_early_ends_the_menu() -> None:
    short = Curve(tuple(range(8)), (0.0, 0.1, 0.2))
    assert menu_of("g", 8, 1, short).widths == (6, 7, 8)


@settings(deadline=None, max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5),
    step=st.integers(1, 16),
    ratio=st.floats(0, 0.999),
)
def test_a_ratio_is_met_as_nearly_as_is_legal(sizes: list[int], step: int, ratio: float) -> None:
    menus = [menu_of(f"g{index}", size, step) for index, size in enumerate(sizes)]
    widths = uniform_widths(menus, ratio)
    for menu in menus:
        off = abs(widths[menu.name] - menu.units * (1 - ratio))
        assert widths[menu.name] in menu.widths
        assert off <= min(abs(width - menu.units * (1 - ratio)) for width in menu.widths) + 1e-9


@pytest.mark.parametrize("bad", [-0.1, 1, 1.5, float("nan"), True, "0.5"])
def test_a_ratio_that_is_none_is_refused(bad: object) -> None:
    with pytest.raises(ArgumentError, match="ratio is"):
        uniform_widths([menu_of("g", 8, 1)], bad)  # type: ignore[arg-type]  # what a user may pass


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(2, 64), min_size=1, max_size=6),
    step=st.integers(1, 8),
    seed=st.integers(0, 99),
    share=st.floats(0.05, 1.0),
)
def test_the_uniform_plan_for_a_target_is_the_widest_of_all_ratios(
    sizes: list[int], step: int, seed: int, share: float
) -> None:
    menus, layers = chain(sizes, seed=seed, step=step)
    costs = flops_costs(layers)
    target = costs.total(full_widths(menus)) * share
    fitting = [
        cost
        for ratio in (index / 2000 for index in range(2000))
        if (cost := costs.total(uniform_widths(menus, ratio))) <= target
    ]
    if not fitting:
        with pytest.raises(PruningError):
            uniform_for(menus, costs, target)
        return
    plan = uniform_for(menus, costs, target)
    assert max(fitting) <= plan.cost + 1e-9
    assert plan.cost == costs.total(plan.widths) <= target
    # Apart from groups that kept one width more, it is the plan of its ratio.
    for menu, (name, width) in zip(menus, plan.widths.items(), strict=True):
        pure = menu.widths.index(uniform_widths(menus, plan.ratio)[name])
        assert menu.widths.index(width) - pure in (0, 1)


def test_groups_of_one_size_need_not_all_shrink_at_once() -> None:
    menus = [menu_of(f"g{index}", 32, 16) for index in range(4)]
    layers = [Layer(f"l{index}", Channels(1), Channels(0, {f"g{index}": 1}), 1.0) for index in range(4)]
    plan = uniform_for(menus, flops_costs(layers), 4 * 32 * 0.75)
    assert plan.cost == 4 * 32 * 0.75
    assert sorted(plan.widths.values()) == [16, 16, 32, 32]


def test_dense_is_its_own_plan() -> None:
    menus, layers = chain([8, 8])
    costs = flops_costs(layers)
    assert uniform_for(menus, costs, costs.total(full_widths(menus))).widths == full_widths(menus)


@pytest.mark.parametrize("solve", [uniform_for, allocate])
def test_a_target_that_cannot_be_met_names_what_can(solve: object) -> None:
    menus, layers = chain([16, 16], step=4)
    costs = flops_costs(layers)
    dense, least = costs.total(full_widths(menus)), costs.total(smallest_widths(menus))
    with pytest.raises(PruningError, match=f"{least / dense:.1%} of dense"):
        solve(menus, costs, least * 0.99)  # type: ignore[operator]  # either of two functions
    assert solve(menus, costs, least).widths == smallest_widths(menus)  # type: ignore[operator]  # likewise


def test_protected_everything_leaves_only_the_dense_plan() -> None:
    menus, layers = [Menu("g0", (8,), (0.0,))], chain([8])[1]
    costs = flops_costs(layers)
    with pytest.raises(PruningError, match=r"100\.0% of dense"):
        uniform_for(menus, costs, costs.total({"g0": 8}) / 2)


def test_the_cost_of_a_change_is_the_difference_of_totals() -> None:
    menus, layers = chain([8, 9, 10])
    costs, rng = flops_costs(layers), random.Random(0)
    for _ in range(50):
        before: Widths = {menu.name: rng.choice(menu.widths) for menu in menus}
        changes = {menu.name: rng.choice(menu.widths) for menu in rng.sample(menus, 2)}
        after = {**before, **changes}
        assert costs.change(before, changes) == pytest.approx(costs.total(after) - costs.total(before))
        assert costs.total(after) == pytest.approx(total_flops(tuple(layers), after))
    assert costs.meet("g0", "g1")
    assert not costs.meet("g0", "g2")


@settings(deadline=None, max_examples=60)
@given(
    errors=st.lists(
        st.lists(st.floats(0, 1, allow_subnormal=False), min_size=4, max_size=4), min_size=1, max_size=4
    ),
    prices=st.lists(st.integers(1, 50), min_size=4, max_size=4),
    share=st.floats(0.1, 1.0),
)
def test_where_costs_add_up_allocation_is_brute_force(
    errors: list[list[float]], prices: list[int], share: float
) -> None:
    menus = [
        Menu(f"g{index}", (1, 2, 3, 4, 5), (*sorted(each, reverse=True), 0.0))
        for index, each in enumerate(errors)
    ]
    layers = [
        Layer(menu.name, Channels(1), Channels(0, {menu.name: 1}), price)
        for menu, price in zip(menus, prices, strict=False)
    ]
    costs = flops_costs(layers)
    target = costs.total(full_widths(menus)) * share
    if costs.total(smallest_widths(menus)) > target:
        with pytest.raises(PruningError):
            allocate(menus, costs, target)
        return
    found = allocate(menus, costs, target)
    assert found.cost <= target
    assert found.error == pytest.approx(brute_force(menus, costs, target), abs=1e-9)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_where_groups_multiply_allocation_is_within_a_percent_of_brute_force(share: float) -> None:
    ratios = []
    for seed in range(20):
        menus, layers = chain([8, 8, 8, 8], seed=seed)
        costs = flops_costs(layers)
        target = costs.total(full_widths(menus)) * share
        found = allocate(menus, costs, target)
        assert found.cost <= target
        assert found.error == pytest.approx(total_error(menus, found.widths))
        ratios.append(found.error / brute_force(menus, costs, target))
    assert min(ratios) > 1 - 1e-9
    assert sum(ratios) / len(ratios) < 1.01
    assert sum(ratio < 1 + 1e-9 for ratio in ratios) >= 18  # of 20


def test_plateaus_of_the_cost_are_used_to_the_full() -> None:
    def blocks(layer: Layer, _inputs: int, outputs: int) -> float:
        return layer.flops_per_pair * -(-outputs // 16)

    menus = [
        menu_of(f"g{index}", 64, 4, Curve(tuple(range(64)), tuple(k / 64 for k in range(65))))
        for index in (0, 1)
    ]
    layers = [Layer(f"l{index}", Channels(1), Channels(0, {f"g{index}": 1}), 1.0) for index in (0, 1)]
    found = allocate(menus, Costs(layers, blocks), 5.0)
    assert all(width % 16 == 0 for width in found.widths.values())
    assert found.cost == 5.0


def test_allocation_is_deterministic_and_never_worse_than_uniform() -> None:
    for seed in range(5):
        menus, layers = chain([24, 32, 16, 40, 48, 8], seed=seed, step=4)
        costs = flops_costs(layers)
        target = costs.total(full_widths(menus)) * 0.4
        first, second = allocate(menus, costs, target), allocate(menus, flops_costs(layers), target)
        assert first == second
        assert first.error <= total_error(menus, uniform_for(menus, costs, target).widths)


def test_more_budget_never_costs_accuracy_by_more_than_the_search_is_off() -> None:
    menus, layers = chain([24, 32, 16, 40], seed=3, step=2)
    costs = flops_costs(layers)
    dense = costs.total(full_widths(menus))
    errors = [allocate(menus, costs, dense * share).error for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0
