"""Compensation against direct least squares on explicit data and through the layers of torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from correlated import consumer, features, second_moment, weights
from sdk_pruning.compensators.compensated import towards
from sdk_pruning.compensators.delta import delta
from sdk_pruning.compensators.least_squares import CANDIDATES, best_ridge, least_squares
from sdk_pruning.compensators.mixing import mixed, mixed_bias_shift, mixing
from sdk_pruning.compensators.table import COMPENSATORS, find_compensator
from sdk_pruning.components import Consumer
from sdk_pruning.fidelity import RIDGE, similarity, subset_fidelity
from sdk_pruning.moments import Moments, MomentSums, patches
from sdk_runtimes.errors import UnknownChoiceError


def moments(u, v=None, batch=16):
    sums = MomentSums()
    for start in range(0, len(u), batch):
        rows = slice(start, start + batch)
        sums.add(u[rows], None if v is None else v[rows])
    return sums.finish()


def fit(inputs, targets, *, intercept):
    """Least squares by torch: weight (targets, inputs), bias."""
    rows = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], 1) if intercept else inputs
    solution = torch.linalg.lstsq(rows, targets).solution.T
    return (solution[:, :-1], solution[:, -1]) if intercept else (solution, torch.zeros(len(solution)))


def pair(samples, count, seed):
    """Features of a dense network with a mean, and those that a pruned one has instead."""
    u = features(samples, count, seed) + 3 * weights(1, count, seed + 1)
    return u, 0.9 * u + 0.3 * features(samples, count, seed + 2) + 0.5


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(2, 12),
    outputs=st.integers(1, 5),
    seed=st.integers(0, 1000),
    centred=st.booleans(),
    data=st.data(),
)
def test_without_a_ridge_it_is_the_least_squares_of_torch(count, outputs, seed, centred, data):
    u, v = pair(20 * count, count, seed)
    kept = torch.tensor(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    weight = weights(outputs, count, seed)
    got = least_squares(weight, kept, moments(u, v), centred=centred, ridge=0.0)
    want, bias = fit(v[:, kept], u @ weight.T, intercept=centred)
    assert torch.allclose(got.weight, want, atol=1e-6)
    assert torch.allclose(got.bias_shift, bias.double(), atol=1e-5)


def test_with_a_ridge_it_is_the_least_squares_that_is_pulled_to_the_weights():
    u, v = pair(100, 6, 0)
    weight, kept = weights(3, 6, 0), torch.tensor([0, 2, 5])
    scale = v[:, kept].square().mean()
    pull = (0.3 * scale * len(v)).sqrt() * torch.eye(3, dtype=v.dtype)
    rows = torch.cat([v[:, kept], pull])
    want, _ = fit(rows, torch.cat([u @ weight.T, pull @ weight[:, kept].T]), intercept=False)
    got = least_squares(weight, kept, moments(u, v), centred=False, ridge=0.3)
    assert torch.allclose(got.weight, want)
    assert got.ridge == 0.3
    far = least_squares(weight, kept, moments(u, v), centred=False, ridge=1e9)
    assert torch.allclose(far.weight, weight[:, kept], atol=1e-6)


def test_later_layers_correct_what_earlier_ones_lost():
    """The sequential target beats the one that knows the pruned network's features alone."""
    u, v = pair(2000, 10, 0)
    weight, kept = weights(4, 10, 0), torch.arange(6)

    def lost(fitted):
        return float((u @ weight.T - v[:, kept] @ fitted.weight.T - fitted.bias_shift).square().mean())

    sequential = lost(least_squares(weight, kept, moments(u, v), centred=True))
    alone = lost(least_squares(weight, kept, moments(v), centred=True))
    none = lost(COMPENSATORS["none"](weight, kept, moments(u, v), centred=True, taps=1))
    assert sequential < 0.8 * alone < 0.8 * none


def conv_case(stride, padding, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 3, 10, 10, generator=generator, dtype=torch.float64)
    mix = torch.randn(6, 3, 3, 3, generator=generator, dtype=torch.float64)
    x = F.relu(F.conv2d(x, mix, padding=1))
    weight = torch.randn(4, 6, 3, 3, generator=generator, dtype=torch.float64)
    rows = patches(x, (3, 3), stride, padding)
    sums = MomentSums()
    sums.add(rows)
    kept = torch.tensor([0, 2, 3])
    columns = (kept[:, None] * 9 + torch.arange(9)).flatten()
    return x, weight, rows, sums.finish(), kept, columns


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0), (2, 1)])
def test_a_compensated_convolution_loses_what_was_predicted(stride, padding):
    x, weight, rows, found, kept, columns = conv_case(stride, padding)
    flat = weight.flatten(1)
    got = least_squares(flat, columns, found, centred=True, ridge=0.0)
    want, bias = fit(rows[:, columns], rows @ flat.T, intercept=True)
    assert torch.allclose(got.weight, want, atol=1e-6)
    dense = F.conv2d(x, weight, stride=stride, padding=padding)
    pruned = F.conv2d(
        x[:, kept], got.weight.reshape(4, 3, 3, 3), got.bias_shift, stride=stride, padding=padding
    )
    energy = (dense - dense.mean((0, 2, 3), keepdim=True)).square().sum()
    measured = float((dense - pruned).square().sum() / energy)
    direct = (rows @ flat.T - rows[:, columns] @ want.T - bias).square().sum() / energy
    assert measured == pytest.approx(float(direct), rel=1e-9)
    layer = Consumer("conv", flat, found.pruned_second(centred=True), torch.arange(54).split(9), 9)
    assert measured == pytest.approx(1 - subset_fidelity(layer, kept.tolist()), abs=2e-3)
    assert 0.01 < measured < 1


def test_delta_is_the_papers_proposition():
    """δ = 1 + Q_CC⁻¹ Q_CC̄ 1 (3.8), and least squares over scalars on the data."""
    taps, channels = 4, 5
    x = features(500, taps * channels, 3)
    weight = weights(3, taps * channels, 3)
    kept, gone = [0, 2, 3], [1, 4]
    columns = torch.cat([torch.arange(taps) + taps * channel for channel in kept])
    got = delta(weight, columns, moments(x), centred=False, taps=taps)
    for c, row in enumerate(weight):
        q = similarity(row, second_moment(x), torch.arange(taps * channels).split(taps))
        inner = q[kept][:, kept]
        ridge = RIDGE * inner.diagonal().mean() * torch.eye(3, dtype=q.dtype)
        want = 1 + torch.linalg.solve(inner + ridge, q[kept][:, gone].sum(1))
        scale = (got.weight[c] / row[columns]).reshape(3, taps)
        assert torch.allclose(scale, want[:, None].expand(3, taps))
        parts = torch.stack([x[:, b] @ row[b] for b in torch.arange(taps * channels).split(taps)], 1)
        direct = torch.linalg.lstsq(parts[:, kept], parts.sum(1, keepdim=True)).solution[:, 0]
        assert torch.allclose(want, direct, rtol=5e-3, atol=5e-3)


def test_for_a_linear_layer_delta_is_least_squares():
    """One scalar an input and an output is every weight, so c_out solves are one."""
    u, v = pair(600, 8, 1)
    weight, kept = weights(4, 8, 1), torch.tensor([0, 1, 4, 6])
    off = {}
    for name, got in {
        "delta": delta(weight, kept, moments(u, v), centred=True),
        "ls": least_squares(weight, kept, moments(u, v), centred=True, ridge=0.0),
    }.items():
        off[name] = float((u @ weight.T - v[:, kept] @ got.weight.T - got.bias_shift).square().sum())
    assert off["ls"] <= off["delta"] == pytest.approx(off["ls"], rel=1e-2)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), channels=st.integers(2, 5), taps=st.integers(2, 5), data=st.data())
def test_least_squares_loses_no_more_than_scalars_or_mixing(seed, channels, taps, data):
    count = channels * taps
    x = features(20 * count, count, seed)
    weight = weights(3, count, seed)
    kept = torch.tensor(sorted(data.draw(st.sets(st.integers(0, channels - 1), min_size=1))))
    columns = (kept[:, None] * taps + torch.arange(taps)).flatten()
    # Channels at all taps are the positions of a channel.
    by_channel = moments(x.reshape(-1, channels, taps).transpose(1, 2).reshape(-1, channels))
    mixture = mixing(kept, by_channel, centred=False, ridge=0.0)
    candidates = {
        "delta": delta(weight, columns, moments(x), centred=False, taps=taps).weight,
        "mixing": mixed(weight.reshape(3, channels, taps), mixture, 1).flatten(1),
        "none": weight[:, columns],
    }
    best = least_squares(weight, columns, moments(x), centred=False, ridge=0.0).weight

    def lost(result):
        return float((x @ weight.T - x[:, columns] @ result.T).square().sum() / (x @ weight.T).square().sum())

    assert all(lost(best) <= lost(result) + 1e-9 for result in candidates.values())


def few_samples(seed, samples, count=48):
    every = features(2000 + samples, count, seed, rank=count) + 1
    return every[:samples], every[samples:]


def held_out(result, weight, kept, x):
    y = x @ weight.T
    return float(
        (y - x[:, kept] @ result.weight.T - result.bias_shift).square().sum() / (y - y.mean(0)).square().sum()
    )


@pytest.mark.parametrize("samples", [6, 12, 24, 30])
def test_with_fewer_samples_than_columns_it_still_helps_on_others(samples):
    ours, fixed, none = [], [], []
    for seed in range(5):
        x, others = few_samples(seed, samples)
        weight, kept = weights(6, 48, seed), torch.arange(0, 48, 2)
        found = moments(x, batch=4)
        for ridge, errors in ((None, ours), (RIDGE, fixed), (1e9, none)):
            result = least_squares(weight, kept, found, centred=True, ridge=ridge)
            assert result.weight.isfinite().all()
            errors.append(held_out(result, weight, kept, others))
    assert sum(ours) < sum(none)
    assert sum(ours) < sum(fixed)


def judged_by_data(u, v, weight, kept, ridge):
    """Squared error on one half of a fit on the other, and in turn."""
    half = len(u) // 2
    total = 0.0
    for fitted, judged in ((slice(None, half), slice(half, None)), (slice(half, None), slice(None, half))):
        sums = MomentSums(halves=False)
        sums.add(u[fitted], v[fitted])
        got = least_squares(weight, kept, sums.finish(), centred=True, ridge=2 * ridge)
        off = u[judged] @ weight.T - v[judged][:, kept] @ got.weight.T - got.bias_shift
        total += float(off.square().sum())
    return total


def test_the_ridge_is_the_one_that_serves_the_other_half_best():
    chosen = set()
    for seed in range(60):
        u, v = pair(4 + 2 * seed, 16, seed)
        weight, kept = weights(3, 16, seed), torch.arange(0, 16, 2)
        sums = MomentSums()
        sums.add(u, v)
        risks = [judged_by_data(u, v, weight, kept, ridge) for ridge in CANDIDATES]
        best = best_ridge(weight, kept, sums.finish(), centred=True)
        assert best == CANDIDATES[risks.index(min(risks))]
        chosen.add(best)
    assert len(chosen) >= 4


def test_many_outputs_are_judged_by_a_few_of_their_combinations():
    """The error of the ridge that the sketch chooses is next to that of the best one."""
    for seed in range(5):
        u, v = pair(40, 24, seed)
        weight, kept = weights(300, 24, seed), torch.arange(0, 24, 2)
        sums = MomentSums()
        sums.add(u, v)
        risks = {ridge: judged_by_data(u, v, weight, kept, ridge) for ridge in CANDIDATES}
        assert risks[best_ridge(weight, kept, sums.finish(), centred=True)] < 1.05 * min(risks.values())
        assert max(risks.values()) > 1.2 * min(risks.values())


def test_many_samples_need_next_to_no_ridge_and_few_need_much():
    weight, kept = weights(6, 48, 0), torch.arange(0, 48, 2)
    many, few = (moments(features(samples, 48, 0)) for samples in (20_000, 24))
    assert best_ridge(weight, kept, many, centred=True) <= 1e-3
    assert best_ridge(weight, kept, few, centred=True) >= 1e-2


def test_moments_without_halves_get_the_usual_ridge():
    sums = MomentSums(halves=False)
    sums.add(features(100, 6, 0))
    got = least_squares(weights(2, 6, 0), torch.arange(3), sums.finish(), centred=True)
    assert got.ridge == RIDGE


@pytest.mark.parametrize("name", COMPENSATORS)
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("samples", [1, 3, 50])
def test_dead_and_equal_features_and_zero_weights_stay_finite(name, centred, samples):
    u = features(samples, 12, 0) + 1
    u[:, 3] = 0
    u[:, 5] = 7
    u[:, 8] = u[:, 9]
    weight = weights(4, 12, 0)
    weight[1] = 0
    weight[:, 6:8] = 0
    for v in (None, torch.zeros_like(u), u * 1e-30, u * 1e15):
        for kept in ([2, 3, 4, 5, 8, 9], [3, 2], [6, 7], []):
            got = COMPENSATORS[name](
                weight, torch.tensor(kept, dtype=torch.int64), moments(u, v), centred=centred, taps=2
            )
            assert got.weight.shape == (4, len(kept))
            assert got.weight.isfinite().all()
            assert got.bias_shift.isfinite().all()


def test_a_singular_moment_without_a_ridge_falls_back_to_a_stronger_one():
    second = torch.ones(3, 3, dtype=torch.float64)
    start = weights(2, 3, 0)
    target = weights(2, 3, 1)
    result, used = towards(target, second, start, 0.0)
    assert used >= RIDGE
    scaled = second + used * torch.eye(3, dtype=torch.float64)
    assert torch.allclose(result @ scaled, target + used * start)


def test_where_all_features_go_their_mean_is_left_to_the_bias():
    u = features(50, 4, 0) + 2
    weight = weights(3, 4, 0)
    none_kept = torch.empty(0, dtype=torch.int64)
    got = least_squares(weight, none_kept, moments(u), centred=True)
    assert torch.allclose(got.bias_shift, weight @ u.mean(0), atol=1e-6)


def test_keeping_everything_changes_nothing():
    u = features(50, 6, 0) + 2
    for name, compensate in COMPENSATORS.items():
        got = compensate(weights(3, 6, 0), torch.arange(6), moments(u), centred=True, taps=2)
        assert torch.allclose(got.weight, weights(3, 6, 0), atol=1e-9), name
        assert torch.allclose(got.bias_shift, torch.zeros(3, dtype=torch.float64), atol=1e-9), name


def test_no_compensation_keeps_weights_and_bias():
    u, v = pair(50, 6, 0)
    got = COMPENSATORS["none"](weights(3, 6, 0), torch.tensor([1, 4]), moments(u, v), centred=True, taps=1)
    assert torch.equal(got.weight, weights(3, 6, 0)[:, [1, 4]])
    assert not got.bias_shift.any()


def test_an_unknown_compensation_is_an_error_that_lists_the_known():
    with pytest.raises(UnknownChoiceError, match="'delta'"):
        find_compensator("magic")
    assert find_compensator("ls") is least_squares


def channel_case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 3, 9, 9, generator=generator, dtype=torch.float64)
    x = F.conv2d(x, torch.randn(5, 3, 3, 3, generator=generator, dtype=torch.float64)) + 2
    rows = x.movedim(1, -1).reshape(-1, 5)
    sums = MomentSums()
    sums.add(rows)
    return x, rows, sums.finish(), torch.tensor([0, 2, 4])


@pytest.mark.parametrize("centred", [True, False])
def test_mixing_is_least_squares_of_all_channels_on_those_that_stay(centred):
    _, rows, found, kept = channel_case()
    want, shift = fit(rows[:, kept], rows, intercept=centred)
    got = mixing(kept, found, centred=centred, ridge=0.0)
    assert torch.allclose(got.matrix, want, atol=1e-7)
    assert torch.allclose(got.shift, shift.double(), atol=1e-6)
    assert torch.allclose(got.matrix[kept], torch.eye(3, dtype=torch.float64), atol=1e-7)


@pytest.mark.parametrize(
    ("convolve", "axis", "phases"),
    [
        (F.conv2d, 1, 1),
        (F.conv_transpose2d, 0, 1),
        (lambda x, w: F.conv_transpose2d(x, w, stride=3), 0, 9),
    ],
)
def test_a_mixed_convolution_reads_the_channels_as_they_are_made_up(convolve, axis, phases):
    x, _, found, kept = channel_case()
    shape = (4, 5, 3, 3) if axis == 1 else (5, 4, 3, 3)
    weight = weights(4 * 5, 9, 0).reshape(shape)
    mixture = mixing(kept, found, centred=True)
    made_up = torch.einsum("ip,bpyx->biyx", mixture.matrix, x[:, kept]) + mixture.shift[:, None, None]
    want = convolve(made_up, weight)
    bias = mixed_bias_shift(weight, mixture, axis) / phases
    got = convolve(x[:, kept], mixed(weight, mixture, axis))
    border = 3 if axis == 0 else 0
    inside = (slice(None), slice(None), *[slice(border, size - border) for size in got.shape[2:]])
    off = (want - got)[inside]
    if phases == 1:
        assert torch.allclose(off, bias[:, None, None].expand_as(off), atol=1e-9)
    assert torch.allclose(off.mean((0, 2, 3)), bias, atol=1e-9)


def test_mixing_restores_channels_that_follow_from_others():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, 9, 9, generator=generator, dtype=torch.float64)
    x = F.conv2d(x, torch.randn(5, 3, 1, 1, generator=generator, dtype=torch.float64))
    sums = MomentSums()
    sums.add(x.movedim(1, -1).reshape(-1, 5))
    kept = torch.tensor([0, 2, 4])
    weight = weights(5, 36, 0).reshape(5, 4, 3, 3)
    dense = F.conv_transpose2d(x, weight, stride=2)
    mixture = mixing(kept, sums.finish(), centred=False)
    lost = (dense - F.conv_transpose2d(x[:, kept], mixed(weight, mixture, 0), stride=2)).square().sum()
    plain = (dense - F.conv_transpose2d(x[:, kept], weight[kept], stride=2)).square().sum()
    assert lost < 1e-3 * plain


def test_dims_of_queries_and_keys_are_compensated_like_any_layer():
    """What stays of Σ_d q_d k_dᵀ is weighted so that the logits come closest."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    queries = torch.randn(5, 9, 6, generator=generator, dtype=torch.float64) @ mix
    keys = torch.randn(5, 9, 6, generator=generator, dtype=torch.float64) @ mix.flip(0)
    second = ((queries.mT @ queries) * (keys.mT @ keys)).sum(0) / (5 * 81)
    zeros = torch.zeros(6, dtype=torch.float64)
    found = Moments(5 * 81, zeros, zeros, second, second)
    kept = torch.tensor([0, 3, 4])
    got = least_squares(torch.ones(1, 6, dtype=torch.float64), kept, found, centred=False, ridge=0.0)
    outer = (queries[:, :, None] * keys[:, None]).reshape(-1, 6)
    want, _ = fit(outer[:, kept], outer.sum(1, keepdim=True), intercept=False)
    assert torch.allclose(got.weight, want)


def test_compensation_reaches_the_fidelity_that_selection_counted_on():
    layer = consumer(8, 3, 5, 0, fixed=2)
    kept_units = [0, 2, 3, 6]
    gone = torch.cat([layer.columns[unit] for unit in (1, 4, 5, 7)])
    kept = torch.tensor(sorted(set(range(26)) - set(gone.tolist())))
    zeros = torch.zeros(26, dtype=torch.float64)
    got = least_squares(
        layer.weight, kept, Moments(1, zeros, zeros, layer.second, layer.second), centred=False
    )
    full = torch.zeros_like(layer.weight)
    full[:, kept] = got.weight
    off = layer.weight - full
    lost = torch.sum(off @ layer.second * off) / torch.sum(layer.weight @ layer.second * layer.weight)
    assert float(lost) == pytest.approx(1 - subset_fidelity(layer, kept_units), abs=1e-3)
