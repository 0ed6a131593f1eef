"""Closed forms of subset fidelity against least squares on explicit data."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from correlated import consumer, features, second_moment, weights
from sdk_pruning.components import Consumer
from sdk_pruning.fidelity import (
    RIDGE,
    cholesky,
    component_fidelity,
    energy,
    errors_along,
    regularised,
    similarity,
    singleton_fidelity,
    subset_fidelity,
)
from sdk_pruning.moments import patches
from sdk_runtimes.errors import ArgumentError

shapes = st.tuples(
    st.integers(2, 7), st.integers(1, 3), st.integers(1, 9), st.integers(0, 1000), st.integers(0, 4)
)


def data_with_ridge(layer, x):
    """Samples whose raw moment is the regularised moment of x: λI as √(λn) unit vectors."""
    scale = (RIDGE * layer.second.diagonal().mean() * len(x)).sqrt()
    return torch.cat([x, scale * torch.eye(x.shape[1], dtype=x.dtype)])


def fidelity_by_lstsq(layer, x, kept):
    rows = data_with_ridge(layer, x)
    y = rows @ layer.weight.T
    owned = {int(column) for columns in layer.columns for column in columns}
    fixed = [column for column in range(x.shape[1]) if column not in owned]
    columns = fixed + [int(column) for unit in kept for column in layer.columns[unit]]
    fit = torch.zeros_like(y)
    if columns:
        fit = rows[:, columns] @ torch.linalg.lstsq(rows[:, columns], y).solution
    return float(1 - (y - fit).square().sum() / y.square().sum())


@settings(deadline=None, max_examples=40)
@given(shape=shapes, data=st.data())
def test_subset_fidelity_is_what_least_squares_on_the_data_reaches(shape, data):
    units, block, outputs, seed, fixed = shape
    layer = consumer(units, block, outputs, seed, fixed=fixed)
    x = features(4 * layer.second.shape[0], layer.second.shape[0], seed)
    kept = data.draw(st.sets(st.integers(0, units - 1)))
    assert subset_fidelity(layer, sorted(kept)) == pytest.approx(
        fidelity_by_lstsq(layer, x, sorted(kept)), abs=1e-9
    )


@settings(deadline=None, max_examples=40)
@given(shape=shapes, data=st.data())
def test_fidelity_of_all_is_one_and_grows_with_the_subset(shape, data):
    layer = consumer(*shape[:4], fixed=shape[4])
    assert subset_fidelity(layer, range(shape[0])) == 1.0
    path = data.draw(st.permutations(range(shape[0])))
    values = [subset_fidelity(layer, path[:count]) for count in range(shape[0] + 1)]
    assert all(0 <= a <= b + 1e-12 for a, b in itertools.pairwise(values))
    if not shape[4]:
        assert values[0] == pytest.approx(0, abs=1e-12)


def test_similarity_is_the_inner_product_of_what_components_contribute():
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = weights(1, 27, 1)[0]
    rows = patches(x, (3, 3), padding=1)
    blocks = torch.arange(27).split(9)
    contributions = torch.stack([rows[:, block] @ weight[block] for block in blocks], 1)
    # The same, channel by channel with the convolution itself.
    kernel = weight.reshape(1, 3, 3, 3)
    maps = [torch.nn.functional.conv2d(x[:, [i]], kernel[:, [i]], padding=1).flatten() for i in range(3)]
    assert torch.allclose(contributions, torch.stack(maps, 1))
    q = similarity(weight, second_moment(rows), blocks)
    assert torch.allclose(q, contributions.T @ contributions / len(contributions))


@settings(deadline=None, max_examples=30)
@given(units=st.integers(2, 7), block=st.integers(1, 3), seed=st.integers(0, 1000), data=st.data())
def test_component_fidelity_is_least_squares_over_one_scalar_a_component(units, block, seed, data):
    x = features(200, units * block, seed)
    weight = weights(1, units * block, seed)[0]
    blocks = torch.arange(units * block).split(block)
    parts = torch.stack([x[:, columns] @ weight[columns] for columns in blocks], 1)
    kept = sorted(data.draw(st.sets(st.integers(0, units - 1), min_size=1)))
    y = parts.sum(1, keepdim=True)
    fit = parts[:, kept] @ torch.linalg.lstsq(parts[:, kept], y).solution
    q = similarity(weight, second_moment(x), blocks)
    want = float(1 - (y - fit).square().sum() / y.square().sum())
    assert component_fidelity(q, kept) == pytest.approx(want, abs=1e-9)
    assert component_fidelity(q, range(units)) == pytest.approx(1.0, abs=1e-9)


def test_the_singleton_closed_form_is_the_fidelity_of_one_component():
    q = similarity(weights(1, 6, 0)[0], second_moment(features(100, 6, 0)), torch.arange(6).split(1))
    want = [component_fidelity(q, [unit]) for unit in range(6)]
    assert torch.allclose(singleton_fidelity(q), torch.tensor(want, dtype=torch.float64))


def test_a_component_that_is_dead_has_no_fidelity():
    x = features(100, 4, 0)
    x[:, 2] = 0
    q = similarity(weights(1, 4, 0)[0], second_moment(x), torch.arange(4).split(1))
    assert singleton_fidelity(q)[2] == 0
    assert component_fidelity(q, [0, 1, 3]) == pytest.approx(1.0)


def test_over_all_outputs_it_is_the_papers_fidelity_weighted_by_energy():
    """With one column a unit and no zero weight, scalars reach what least squares reaches."""
    layer = consumer(6, 1, 5, 3)
    second = regularised(layer.second)
    blocks = [torch.cat([columns]) for columns in layer.columns]
    kept = [0, 2, 5]
    lost = total = 0.0
    for row in layer.weight:
        q = similarity(row, second, blocks)
        lost += float(q.sum()) * (1 - component_fidelity(q, kept))
        total += float(q.sum())
    assert subset_fidelity(layer, kept) == pytest.approx(1 - lost / total, abs=1e-10)


def test_with_taps_least_squares_reaches_more_than_the_papers_scalars():
    layer = consumer(5, 4, 3, 7)
    second = regularised(layer.second)
    kept = [0, 3]
    energies = torch.stack([similarity(row, second, layer.columns).sum() for row in layer.weight])
    scalars = torch.tensor(
        [component_fidelity(similarity(row, second, layer.columns), kept) for row in layer.weight]
    )
    assert subset_fidelity(layer, kept) > float((scalars * energies).sum() / energies.sum()) + 0.01


def test_row_norms_of_a_cholesky_factor_are_the_diagonal():
    """The paper's score for language models: no decomposition is needed for it."""
    q = regularised(
        similarity(weights(1, 6, 1)[0], second_moment(features(99, 6, 1)), torch.arange(6).split(1))
    )
    assert torch.allclose(torch.linalg.cholesky(q).square().sum(1), q.diagonal())


@settings(deadline=None, max_examples=40)
@given(shape=shapes, data=st.data())
def test_errors_along_an_order_are_those_of_every_prefix(shape, data):
    units, block, outputs, seed, fixed = shape
    layers = [consumer(units, block, outputs, seed, fixed=fixed), consumer(units, 1, 3, seed + 1)]
    order = data.draw(st.permutations(range(units)))
    errors = errors_along(layers, order)
    assert len(errors) == units + 1
    assert errors[0] == 0.0
    for count, error in enumerate(errors):
        want = sum(1 - subset_fidelity(layer, order[count:]) for layer in layers) / 2
        assert error == pytest.approx(want, abs=1e-9)


def test_rounds_over_rows_are_every_so_many_th_error():
    layer = consumer(6, 2, 4, 0)
    order = [0, 3, 5, 1, 2, 4]
    every = errors_along([layer], order)
    assert errors_along([layer], order, [0, 0, 0, 1, 1, 1]) == pytest.approx(every[::2])
    assert errors_along([layer], order, [0, 0, 1, 1, 2, 2]) == pytest.approx(every[::3])


@pytest.mark.parametrize("rows", [[0, 0, 1], [0, 0, 0, 1]])
def test_rows_that_do_not_fit_are_an_error(rows):
    with pytest.raises(ArgumentError, match="rows of"):
        errors_along([consumer(4)], range(4), rows)


def test_energy_is_that_of_the_output():
    layer = consumer(4, 2, 3, 0)
    rows = data_with_ridge(layer, features(4 * 8, 8, 0))
    assert energy(layer) == pytest.approx(float((rows @ layer.weight.T).square().sum() / (4 * 8)))


def test_a_layer_that_computes_nothing_loses_nothing():
    layer = consumer(4, 1, 3, 0)
    for dead in (
        replace(layer, weight=torch.zeros_like(layer.weight)),
        replace(layer, second=torch.zeros_like(layer.second)),
    ):
        assert energy(dead) == 0
        assert subset_fidelity(dead, [0]) == 1.0
        assert errors_along([dead], range(4)) == (0.0,) * 5
        assert errors_along([dead, layer], range(4)) == errors_along([layer], range(4))


def test_a_layer_that_does_not_read_a_unit_does_not_miss_it():
    layer = consumer(4, 1, 3, 0)
    empty = torch.empty(0, dtype=torch.int64)
    blind = Consumer("blind", layer.weight, layer.second, (empty, *layer.columns[1:]))
    assert subset_fidelity(blind, [1, 2, 3]) == 1.0
    assert errors_along([blind], [0, 1, 2, 3])[1] == 0.0


def test_a_moment_that_rounding_made_indefinite_still_has_a_factor():
    indefinite = torch.diag(torch.tensor([1.0, 1.0, -1e-3], dtype=torch.float64))
    factor = cholesky(indefinite)
    assert bool(factor.isfinite().all())
    assert torch.allclose(factor @ factor.T, indefinite, atol=2e-2)
    assert torch.equal(cholesky(torch.eye(3).double()), torch.eye(3).double())
