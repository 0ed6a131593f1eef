"""Selectors of single units: what each promises, and what all of them have in common."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from correlated import consumer, features, second_moment, weights
from sdk_pruning.components import Consumer
from sdk_pruning.fidelity import (
    component_fidelity,
    regularised,
    similarity,
    singleton_fidelity,
    subset_fidelity,
)
from sdk_pruning.selectors.table import SELECTORS, find_selector
from sdk_runtimes.errors import UnknownChoiceError

names = pytest.mark.parametrize("name", SELECTORS)


@names
def test_a_curve_begins_at_nothing_and_ends_at_everything_lost(name):
    layers = [consumer(7, 2, 4, 0), consumer(7, 1, 9, 1)]
    got = SELECTORS[name](layers, None, 0)
    assert sorted(got.order) == list(range(7))
    assert got.error[0] == 0
    assert got.error[-1] == pytest.approx(1.0)
    assert all(a <= b for a, b in itertools.pairwise(got.error))
    assert got.round_units == 1


@names
def test_every_row_keeps_as_many_units_as_the_others(name):
    rows = [0, 1, 2, 0, 1, 2, 2, 1, 0, 0, 1, 2]
    got = SELECTORS[name]([consumer(12, 2, 4, 0, fixed=2)], rows, 0)
    assert got.round_units == 3
    assert len(got.error) == 5
    for rounds in range(5):
        met = [rows[unit] for unit in got.removed(rounds)]
        assert [met.count(row) for row in range(3)] == [rounds] * 3


@names
def test_dead_units_weights_and_layers_give_finite_curves(name):
    x = features(6, 10, 0, rank=3)
    x[:, 4] = 0
    weight = weights(3, 10, 0)
    weight[:, 7] = 0
    weight[1] = 0
    second = second_moment(x)
    columns = tuple(torch.arange(10).split(2))
    empty = torch.empty(0, dtype=torch.int64)
    live = Consumer("live", weight, second, columns, 2)
    layers = [
        live,
        replace(live, weight=torch.zeros_like(weight)),
        replace(live, second=torch.zeros_like(second)),
        replace(live, columns=(empty, *columns[1:])),
        replace(live, columns=(columns[0][:1], *columns[1:])),
    ]
    for chosen in (layers, layers[1:3], [live], [layers[3]]):
        got = SELECTORS[name](chosen, None, 0)
        assert sorted(got.order) == list(range(5))
        assert torch.tensor(got.error).isfinite().all()
        assert all(0 <= error <= 1 for error in got.error)


@names
def test_a_layer_counts_by_what_it_loses_of_its_own_output(name):
    layers = [consumer(9, 2, 4, 0), consumer(9, 1, 3, 1)]
    loud = [replace(layers[0], weight=layers[0].weight * 1e3), layers[1]]
    assert SELECTORS[name](loud, None, 0).order == SELECTORS[name](layers, None, 0).order


def test_an_unknown_selector_is_an_error_that_lists_the_known():
    with pytest.raises(UnknownChoiceError, match="'singleton'"):
        find_selector("best")
    assert find_selector("obs") is SELECTORS["obs"]


@settings(deadline=None, max_examples=25)
@given(units=st.integers(2, 7), outputs=st.integers(1, 4), seed=st.integers(0, 1000), data=st.data())
def test_singleton_is_optimal_for_uncorrelated_units(units, outputs, seed, data):
    variances = torch.rand(units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    layer = Consumer(
        "w", weights(outputs, units, seed), variances.diag(), tuple(torch.arange(units).split(1))
    )
    got = SELECTORS["singleton"]([layer], None, 0)
    gone = data.draw(st.integers(1, units - 1))
    best = max(subset_fidelity(layer, kept) for kept in itertools.combinations(range(units), units - gone))
    assert 1 - got.error[gone] == pytest.approx(best, abs=1e-12)
    # and compensation has nothing to do: s_i = Q_ii / tr Q (theorem 3.9)
    q = similarity(layer.weight[0], variances.diag(), layer.columns)
    assert torch.allclose(singleton_fidelity(q), q.diagonal() / q.diagonal().sum())


def test_singleton_is_not_optimal_for_correlated_units():
    missed = 0
    for seed in range(20):
        layer = consumer(6, 1, 3, seed)
        best = max(subset_fidelity(layer, kept) for kept in itertools.combinations(range(6), 3))
        missed += 1 - SELECTORS["singleton"]([layer], None, 0).error[3] < best - 1e-9
    assert missed >= 10


def test_singleton_aggregates_fidelity_over_outputs_by_their_energy():
    layer = consumer(6, 3, 4, 0)
    second = regularised(layer.second)
    qs = [similarity(row, second, layer.columns) for row in layer.weight]
    score = sum(torch.tensor([component_fidelity(q, [unit]) for unit in range(6)]) * q.sum() for q in qs)
    assert SELECTORS["singleton"]([layer], None, 0).order == tuple(score.argsort().tolist())


def test_rowsum_energy_and_l2_are_sums_over_the_similarity_matrix():
    layer = consumer(8, 3, 4, 2, fixed=5)
    second = regularised(layer.second)
    every = [*layer.columns, torch.tensor(sorted(set(range(29)) - set(torch.cat(layer.columns).tolist())))]
    q = sum(similarity(row, second, every) for row in layer.weight)
    want = {
        "rowsum": q.sum(1)[:8],
        "energy": q.diagonal()[:8],
        "l2": torch.stack([layer.weight[:, columns].square().sum() for columns in layer.columns]),
    }
    orders = {name: SELECTORS[name]([layer], None, 0).order for name in want}
    assert orders == {name: tuple(score.argsort().tolist()) for name, score in want.items()}
    assert len(set(orders.values())) == 3


@pytest.mark.parametrize("percent", [10, 20, 30, 50])
def test_union_is_the_papers_rule_at_the_count_that_its_percentile_gives(percent):
    layers = [consumer(30, 1, 2, 0), consumer(30, 4, 3, 1, fixed=3)]
    kept = set()
    for layer in layers:
        second = regularised(layer.second)
        rest = torch.tensor(
            sorted(set(range(second.shape[0])) - set(torch.cat(layer.columns).tolist())), dtype=torch.int64
        )
        for row in layer.weight:
            score = similarity(row, second, [*layer.columns, rest]).sum(1)[:30]
            kept |= set(score.topk(30 * percent // 100).indices.tolist())
    got = SELECTORS["union"](layers, None, 0)
    assert 30 * percent // 100 < len(kept) < 30
    assert set(got.order[-len(kept) :]) == kept


def test_a_random_order_depends_on_its_seed_alone():
    layers = [consumer(20)]
    orders = [SELECTORS["random"](layers, None, seed).order for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert SELECTORS["random"]([consumer(20, seed=5)], None, 0).order == orders[0]
