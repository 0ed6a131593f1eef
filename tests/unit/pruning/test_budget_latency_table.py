import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from sdk_pruning.budget.allocation import allocate
from sdk_pruning.budget.latency_table import Grid, LatencyTable, fitted, measure_table
from sdk_pruning.budget.menus import Menu
from sdk_pruning.layers import Channels, Layer
from sdk_runtimes.errors import PruningError

DENSE = {"a": 64, "b": 96}
Modules = Sequence[tuple[nn.Module, Tensor]]


def build(inputs: int, outputs: int) -> tuple[nn.Module, Tensor]:
    return nn.Linear(inputs, outputs), torch.zeros(1, inputs)


def build_depthwise(_inputs: int, outputs: int) -> tuple[nn.Module, Tensor]:
    return nn.Conv2d(outputs, outputs, 3, groups=outputs), torch.zeros(1, outputs, 4, 4)


LAYERS = (
    Layer("first", Channels(3), Channels(0, {"a": 1}), 2.0, build=build, shape_key="first"),
    Layer(
        "depthwise", Channels(0, {"a": 1}), Channels(0, {"a": 1}), 2.0, depthwise=True, build=build_depthwise
    ),
    Layer("middle", Channels(0, {"a": 1}), Channels(0, {"b": 1}), 2.0, build=build, shape_key="linear"),
    Layer("twin", Channels(0, {"a": 1}), Channels(0, {"b": 1}), 2.0, build=build, shape_key="linear"),
    Layer("product", Channels(0, {"b": 1}), Channels(4), 2.0),
)


def truth(module: nn.Module) -> float:
    """Bilinear in the channels, so that the grid must get it exactly."""
    if isinstance(module, nn.Conv2d):
        return 0.1 + 0.02 * module.out_channels
    assert isinstance(module, nn.Linear)
    return 0.05 + 1e-3 * module.in_features * module.out_features + 0.01 * module.out_features


class Timer:
    def __init__(self) -> None:
        self.lots: list[Modules] = []

    def __call__(self, modules: Modules) -> list[float]:
        self.lots.append(modules)
        return [truth(module) for module, _ in modules]


def table() -> LatencyTable:
    return measure_table(LAYERS, DENSE, Timer())


def test_every_distinct_layer_is_timed_once_at_every_point_and_all_in_one_call() -> None:
    timer = Timer()
    measure_table(LAYERS, DENSE, timer)
    assert len(timer.lots) == 1
    assert len(timer.lots[0]) == 3 + 3 + 9  # the first's inputs are fixed; twins are measured once
    for module, sample in timer.lots[0]:
        module(sample)  # they fit each other


@pytest.mark.parametrize(("a", "b"), [(64, 96), (16, 24), (40, 50), (17, 95), (8, 10)])
def test_bilinear_layers_are_predicted_exactly_within_and_beyond_the_grid(a: int, b: int) -> None:
    found = table()
    for layer in LAYERS[:4]:
        at = (layer.inputs.at({"a": a, "b": b}), layer.outputs.at({"a": a, "b": b}))
        assert layer.build
        assert found.layer_ms(layer, *at) == pytest.approx(truth(layer.build(*at)[0]))


def test_what_cannot_stand_alone_is_estimated_from_its_flops() -> None:
    found = table()
    flops = sum(layer.flops(DENSE) for layer in LAYERS[:4])
    ms = sum(found.layer_ms(layer, layer.inputs.at(DENSE), layer.outputs.at(DENSE)) for layer in LAYERS[:4])
    assert found.layer_ms(LAYERS[4], 96, 4) == pytest.approx(ms / flops * 2 * 96 * 4)


def test_a_block_that_is_not_full_costs_as_much_as_a_full_one() -> None:
    found = measure_table(LAYERS, DENSE, Timer(), block=16)
    middle = LAYERS[2]
    assert found.layer_ms(middle, 33, 49) == found.layer_ms(middle, 48, 64)
    assert found.layer_ms(middle, 32, 49) < found.layer_ms(middle, 33, 49)
    assert found.grids["middle"].inputs == (16, 32, 64)


def test_a_dense_width_that_fills_no_block_is_measured_as_it_is() -> None:
    timer = Timer()
    layer = Layer("l", Channels(3), Channels(0, {"g": 1}), 2.0, build=build)
    found = measure_table([layer], {"g": 40}, timer, block=16)
    assert {module.out_features for module, _ in timer.lots[0] if isinstance(module, nn.Linear)} == {
        16,
        32,
        40,
    }
    assert found.grids["l"].outputs == (16, 32, 48)
    assert found.layer_ms(layer, 3, 40) == pytest.approx(truth(nn.Linear(3, 40)))


def test_noise_never_makes_a_wider_layer_faster() -> None:
    rng = random.Random(0)
    for _ in range(20):
        found = measure_table(LAYERS, DENSE, lambda mods: [rng.uniform(0.1, 1) for _ in mods])
        for grid in found.grids.values():
            assert all(list(row) == sorted(row) for row in grid.ms)
            assert all(list(column) == sorted(column) for column in zip(*grid.ms, strict=True))


def test_extrapolation_ends_at_zero() -> None:
    assert Grid((1,), (10, 20), ((1.0, 9.0),)).at(1, 2) == 0.0


def test_factor_and_constant_are_found_again_from_two_networks() -> None:
    plain = table()
    half = {"a": 32, "b": 48}
    measured = [(widths, 1.5 * plain.predict_ms(widths) + 0.7) for widths in (DENSE, half)]
    found = fitted(plain, measured)
    assert (found.scale, found.rest_ms) == pytest.approx((1.5, 0.7))
    third = {"a": 20, "b": 90}
    assert found.predict_ms(third) == pytest.approx(1.5 * plain.predict_ms(third) + 0.7)


def test_one_network_gives_the_factor_alone() -> None:
    found = fitted(table(), [(DENSE, 7.0)])
    assert found.rest_ms == 0
    assert found.predict_ms(DENSE) == pytest.approx(7.0)


def test_no_negative_constant_is_fitted() -> None:
    plain = table()
    half = {"a": 32, "b": 48}
    measured = [(DENSE, plain.predict_ms(DENSE)), (half, plain.predict_ms(half) * 0.8)]
    found = fitted(plain, measured)
    assert found.rest_ms == 0
    assert 0.8 < found.scale < 1


def test_predictions_are_the_costs_that_plans_are_made_with() -> None:
    found = fitted(table(), [(DENSE, 20.0), ({"a": 32, "b": 48}, 9.0)])
    menus = [
        Menu(name, tuple(range(8, units + 1, 8)), tuple((1 - w / units) ** 2 for w in range(8, units + 1, 8)))
        for name, units in DENSE.items()
    ]
    plan = allocate(menus, found.costs(), 12.0, what="milliseconds")
    assert plan.cost == pytest.approx(found.predict_ms(plan.widths))
    assert 10 < plan.cost <= 12


def test_a_network_without_layers_to_time_is_refused() -> None:
    with pytest.raises(PruningError, match="no layer of this network can be timed alone"):
        measure_table(LAYERS[4:], DENSE, Timer())
