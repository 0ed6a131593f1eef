"""The walk through dense and pruned network side by side, held against direct solutions."""

import copy

import pytest
import torch
from torch import Tensor, nn

from sdk_pruning.batch_norms import matched_statistics, statistics_of
from sdk_pruning.calls import Call
from sdk_pruning.compensation import Compensation, compensate
from sdk_pruning.compensators import least_squares
from sdk_pruning.grouping import find_groups
from sdk_pruning.groups import Structure
from sdk_pruning.propagation import propagate, state_of
from sdk_pruning.rules.table import RULES
from sdk_pruning.tracing import Traced, trace


def walked(model: nn.Module, data: Tensor, removed: dict, **how) -> tuple[Traced, Structure, Compensation]:
    call = Call((data[:2],))
    traced = trace(model, call)
    structure = find_groups(propagate(traced, model, call, RULES), model)
    state = {name: tensor.detach() for name, tensor in state_of(model).items()}
    calls = Call((data,)).split(16)
    return traced, structure, compensate(traced, structure, state, removed, calls, **how)


def test_a_linear_layer_gets_the_least_squares_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_squares, "CANDIDATES", (1e-9,))
    monkeypatch.setattr(least_squares, "RIDGE", 1e-9)
    torch.manual_seed(0)
    mix = torch.randn(6, 6)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4)).eval()
    data = torch.randn(64, 6) @ mix + 1
    _, _, found = walked(model, data, {"0": (1, 4, 7)})
    with torch.no_grad():
        hidden, wanted = model[:2](data).double(), model(data).double()
    kept = [unit for unit in range(10) if unit not in (1, 4, 7)]
    known = torch.cat((hidden[:, kept], torch.ones(64, 1).double()), 1)
    solution = torch.linalg.lstsq(known, wanted).solution.T
    assert found.state["2.weight"][:, kept] == pytest.approx(solution[:, :-1], abs=2e-3)
    assert found.state["2.bias"] == pytest.approx(solution[:, -1], abs=2e-3)
    assert not found.state["2.weight"][:, [1, 4, 7]].any()


def test_later_layers_are_fitted_to_what_earlier_ones_have_become() -> None:
    """Sequential beats fitting every layer on dense features: it can only lower each layer's error."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(8, 24),
        nn.ReLU(),
        nn.Linear(24, 24),
        nn.ReLU(),
        nn.Linear(24, 24),
        nn.ReLU(),
        nn.Linear(24, 3),
    ).eval()
    data = torch.randn(256, 3) @ torch.randn(3, 8) * 2
    gone = tuple(range(12))
    removed = {"0": gone, "2": gone, "4": gone}
    errors = {}
    for compensation in ("none", "delta", "ls"):
        _, _, found = walked(model, data, removed, compensation=compensation)
        pruned = copy.deepcopy(model)
        pruned.load_state_dict(found.state)
        with torch.no_grad():
            errors[compensation] = float((pruned(data) - model(data)).square().sum())
    assert errors["ls"] < errors["delta"] < errors["none"]


def test_what_is_not_touched_keeps_its_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4)).eval()
    _, _, found = walked(model, torch.randn(32, 6), {"0": (0,)}, untouched=frozenset({"2.weight", "2.bias"}))
    assert torch.equal(found.state["2.weight"], model[2].weight)
    assert torch.equal(found.state["0.weight"], model[0].weight)


def test_units_are_chosen_once_for_each_group_that_is_open() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    asked = []

    def choose(group, consumers):
        asked.append((group.name, [consumer.name for consumer in consumers]))
        return (0, 1)

    _, _, found = walked(model, torch.randn(32, 6), {"0": (5,)}, choose=choose)
    assert asked == [("2", ["4.weight"])]
    assert found.removed == {"0": (5,), "2": (0, 1)}


def test_a_layer_without_bias_gets_one_where_the_mean_must_go_somewhere() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4, bias=False)).eval()
    data = torch.randn(128, 6)
    _, _, found = walked(model, data, {"0": (0, 1, 2, 3)})
    with torch.no_grad():
        now = model[:2](data) @ found.state["2.weight"].T + found.added_biases["2.weight"]
        assert now.mean(0) == pytest.approx(model(data).mean(0), abs=1e-4)


def test_batch_norms_keep_what_they_know_and_move_by_the_difference() -> None:
    torch.manual_seed(0)
    dense = [torch.randn(8, 3, 5, 5) * 2 + 1 for _ in range(4)]
    pruned = [batch * 0.5 + 3 for batch in dense]
    running_mean, running_var = torch.tensor([9.0, 8.0, 7.0]), torch.tensor([4.0, 5.0, 6.0])
    same = matched_statistics(running_mean, running_var, dense, dense)
    assert torch.equal(same[0], running_mean)
    assert torch.equal(same[1], running_var)
    mean, variance = matched_statistics(running_mean, running_var, dense, pruned)
    there = statistics_of(dense)[0]
    assert mean.double() == pytest.approx(running_mean.double() + (3 - 0.5 * there), abs=1e-4)
    assert variance == pytest.approx(running_var / 4, rel=1e-4)


def test_statistics_are_those_of_all_samples_together() -> None:
    torch.manual_seed(0)
    batches = [torch.randn(size, 3, 4, 4) * 3 + 5 for size in (2, 7)]
    together = torch.cat(batches).double().transpose(0, 1).flatten(1)
    mean, variance = statistics_of(batches)
    assert mean == pytest.approx(together.mean(1), abs=1e-5)
    assert variance == pytest.approx(together.var(1, correction=0), rel=1e-5)


@pytest.mark.parametrize(("compensation", "is_kept"), [("none", True), ("ls", False)])
def test_no_compensation_means_none_for_transposed_convolutions_too(compensation: str, is_kept: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.ConvTranspose2d(6, 3, 2, 2)).eval()
    _, _, found = walked(model, torch.randn(32, 2, 4, 4), {"0": (1, 4)}, compensation=compensation)
    kept = [0, 2, 3, 5]
    assert torch.equal(found.state["2.weight"][kept], model[2].weight[kept]) == is_kept
    assert not found.state["2.weight"][[1, 4]].any()
