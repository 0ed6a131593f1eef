"""Widths for FLOPs and latencies, on a trained network."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sdk_pruning.allocating import budget_menus
from sdk_pruning.budget.menus import full_widths
from sdk_pruning.carrying_out import Method, carry_out, dense_curves
from sdk_pruning.prune import prune
from sdk_pruning.sketch import Sketch, measured_menus
from sdk_pruning.study import Study, study
from sdk_runtimes.errors import PruningError
from trained import digits, trained_network


def flops(model: nn.Module, call: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(call)
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def about() -> Study:
    torch.set_num_threads(1)
    images = digits().train_images
    return study(
        trained_network("cnn"), images[:128], images[:1], None, protect=(), attention="heads", samples=128
    )


@pytest.fixture(scope="module")
def sketch(about: Study) -> Sketch:
    dense = dense_curves(about, "obs", 0)
    return Sketch(about, dense.curves, dense.fits)


def test_a_sketch_of_nothing_has_no_error(about: Study, sketch: Sketch) -> None:
    assert sketch.error(about.full) == 0


def test_a_sketch_orders_plans_as_carrying_them_out_does(about: Study, sketch: Sketch) -> None:
    plans = [
        {name: max(1, int(units * share)) for name, units in about.full.items()} for share in (0.8, 0.5, 0.2)
    ]
    rough = [sketch.error(plan) for plan in plans]
    true = [carry_out(about, plan, Method("obs", "ls")).relative_error for plan in plans]
    assert rough == sorted(rough)
    assert true == sorted(true)
    assert rough[1] == pytest.approx(true[1] ** 2, rel=2)


def test_measured_menus_never_call_a_narrower_group_better(about: Study, sketch: Sketch) -> None:
    dense = dense_curves(about, "obs", 0)
    menus = budget_menus(about, 1, dense.curves)
    found = measured_menus(menus, dense.curves, sketch, full_widths(menus), lambda *_: None)
    for menu in found:
        assert menu.errors[-1] == 0
        assert list(menu.errors) == sorted(menu.errors, reverse=True)


@pytest.mark.parametrize("share", [0.8, 0.3])
def test_flops_stay_within_the_share_and_are_those_of_the_pruned_model(share: float) -> None:
    model, images = trained_network("cnn"), digits().train_images
    result = prune(model, images[:128], sample_inputs=images[:1], target_flops=share)
    dense, pruned = flops(model, images[:1]), flops(result.model, images[:1])
    assert result.report.flops == (dense, pruned)
    assert 0.8 * share * dense < pruned <= share * dense


def test_a_share_that_cannot_be_met_names_what_can() -> None:
    images = digits().train_images
    with pytest.raises(PruningError, match=r"ask for 0\.\d+ of dense"):
        prune(trained_network("cnn"), images[:64], sample_inputs=images[:1], target_flops=1e-6)


@dataclass(frozen=True)
class FakeTime:
    ms: float
    ratio: float


class FlopsAsTime:
    """A meter whose networks take as long as they have FLOPs, and a little for the rest."""

    device, label = "cpu", "flops"

    def __init__(self, dense: nn.Module, call: Tensor) -> None:
        self._call = call
        self.dense_ms = self._ms(dense)

    def _ms(self, network: nn.Module) -> float:
        return flops(network, self._call) / 1e6 + 0.1

    def networks(self, networks: Mapping[str, nn.Module]) -> dict[str, FakeTime]:
        return {
            name: FakeTime(self._ms(network), self.dense_ms / self._ms(network))
            for name, network in networks.items()
        }

    def layers(self, layers: Sequence[tuple[nn.Module, Tensor]]) -> list[float]:
        return [flops(layer, sample) / 1e6 + 0.01 for layer, sample in layers]


class Opened:
    def __init__(self, meter: FlopsAsTime) -> None:
        self._meter = meter

    def __enter__(self) -> FlopsAsTime:
        return self._meter

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("share", [0.7, 0.4])
def test_a_latency_is_met_within_five_percent(share: float) -> None:
    model, images = trained_network("cnn"), digits().train_images
    meter = FlopsAsTime(model, images[:1])
    result = prune(
        model,
        images[:128],
        sample_inputs=images[:1],
        target_latency_ms=share * meter.dense_ms,
        round_to=1,
        open_meter=lambda *_: Opened(meter),
    )
    assert result.report.latency_ms is not None
    assert result.report.latency_ms[1] == pytest.approx(share * meter.dense_ms, rel=0.05)
    assert result.report.allocation.split(":")[0] in ("uniform", "allocated")


def test_a_latency_below_reach_is_refused_with_the_best_there_is() -> None:
    model, images = trained_network("cnn"), digits().train_images
    meter = FlopsAsTime(model, images[:1])
    with pytest.raises(PruningError, match=r"fastest of \d+ measured plans"):
        prune(
            model,
            images[:64],
            sample_inputs=images[:1],
            target_latency_ms=0.05,
            open_meter=lambda *_: Opened(meter),
        )


def test_a_latency_that_is_kept_already_cuts_nothing() -> None:
    model, images = trained_network("cnn"), digits().train_images
    meter = FlopsAsTime(model, images[:1])
    result = prune(
        model,
        images[:64],
        sample_inputs=images[:1],
        target_latency_ms=2 * meter.dense_ms,
        open_meter=lambda *_: Opened(meter),
    )
    assert result.report.flops_left == 1
    with torch.no_grad():
        assert torch.equal(result.model(images[:8]), copy.deepcopy(model)(images[:8]))
