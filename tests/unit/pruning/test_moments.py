"""Moments against direct sums in double precision; patches against the convolutions of torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sdk_pruning.moments import MomentSums, patches
from sdk_runtimes.errors import ArgumentError


def batches(samples, count, offset, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(count, count, generator=generator)
    return torch.randn(samples, count, generator=generator) @ mix + offset


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_single_precision_products_keep_six_digits_of_the_covariance(offset):
    u = batches(20_000, 12, offset)
    v = u + batches(20_000, 12, 0.0, seed=1)
    sums = MomentSums()
    for start in range(0, 20_000, 9_000):
        sums.add(u[start : start + 9_000], v[start : start + 9_000])
    got = sums.finish()
    du, dv = u.double(), v.double()
    spread = dv.std(0)
    want = (dv - dv.mean(0)).T @ (dv - dv.mean(0)) / len(dv)
    assert ((got.pruned_second(centred=True) - want) / spread / spread[:, None]).abs().max() < 1e-6
    cross = (du - du.mean(0)).T @ (dv - dv.mean(0)) / len(dv)
    assert ((got.cross_second(centred=True) - cross) / spread / du.std(0)[:, None]).abs().max() < 1e-6
    assert torch.allclose(got.cross_second(centred=False), du.T @ dv / len(dv), rtol=1e-6, atol=1e-5)
    assert torch.allclose(got.mean_dense, du.mean(0), rtol=1e-7, atol=1e-7)
    assert torch.allclose(got.mean_pruned, dv.mean(0), rtol=1e-7, atol=1e-7)
    assert got.count == 20_000


def test_double_precision_input_stays_double():
    u = batches(50, 5, 1.0).double()
    sums = MomentSums(halves=False)
    sums.add(u)
    assert torch.allclose(sums.finish().pruned, u.T @ u / 50, rtol=1e-13)


def test_without_a_pruned_twin_both_features_are_the_same():
    sums = MomentSums()
    sums.add(batches(64, 5, 2.0))
    got = sums.finish()
    assert torch.equal(got.cross, got.pruned)
    assert torch.equal(got.mean_dense, got.mean_pruned)


@pytest.mark.parametrize("sizes", [(10, 6, 8), (1, 1, 1, 1), (3,), (1,), (5, 5, 5)])
def test_halves_are_parts_of_the_whole_of_nearly_equal_size(sizes):
    sums = MomentSums()
    for seed, size in enumerate(sizes):
        sums.add(batches(size, 4, 1.0, seed))
    got = sums.finish()
    counts = [half.count for half in got.halves]
    assert got.count == sum(sizes)
    if sum(sizes) == 1:
        assert not got.halves
        return
    assert sum(counts) == got.count
    assert abs(counts[0] - counts[1]) <= 1
    together = sum(half.cross * half.count for half in got.halves) / got.count
    assert torch.allclose(together, got.cross, rtol=1e-12)


def test_no_samples_are_an_error():
    with pytest.raises(ArgumentError, match="no samples"):
        MomentSums().finish()


@pytest.mark.parametrize(
    ("first", "second"),
    [((4, 3), (4, 2)), ((4, 3), (4, 3, 1))],
)
def test_batches_of_other_features_are_an_error(first, second):
    sums = MomentSums()
    sums.add(torch.ones(first))
    with pytest.raises(ArgumentError, match="features"):
        sums.add(torch.ones(second))


def test_a_twin_that_comes_later_is_an_error():
    sums = MomentSums()
    sums.add(torch.ones(4, 3))
    with pytest.raises(ArgumentError, match="features"):
        sums.add(torch.ones(4, 3), torch.ones(4, 3))


def test_a_twin_of_another_shape_is_an_error():
    with pytest.raises(ArgumentError, match="features"):
        MomentSums().add(torch.ones(4, 3), torch.ones(5, 3))


# torch says so of "same" with an even kernel, which pads one side more.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@settings(deadline=None, max_examples=60)
@given(
    dims=st.integers(1, 3),
    data=st.data(),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    batch=st.integers(1, 3),
)
def test_a_convolution_is_a_matrix_product_with_its_patches(dims, data, mode, batch):
    def sizes(low, high):
        return tuple(data.draw(st.integers(low, high)) for _ in range(dims))

    kernel, stride, dilation = sizes(1, 3), sizes(1, 3), sizes(1, 2)
    padding = data.draw(st.sampled_from(["same", "valid", "numbers"]))
    if padding == "same":
        stride = (1,) * dims
    amounts = sizes(0, 2) if padding == "numbers" else padding
    kind = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[dims - 1]
    torch.manual_seed(0)
    conv = kind(2, 3, kernel, stride, amounts, dilation, padding_mode=mode).double()
    x = torch.randn(batch, 2, *(7 - dim for dim in range(dims)), dtype=torch.float64)
    rows = patches(x, kernel, stride, amounts, dilation, padding_mode=mode)
    with torch.no_grad():
        want = conv(x).movedim(1, -1).reshape(-1, 3)
        assert torch.allclose(rows @ conv.weight.flatten(1).T + conv.bias, want, atol=1e-12)


def test_patches_are_those_of_unfold():
    x = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    want = F.unfold(x, (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1)).transpose(1, 2).flatten(0, 1)
    assert torch.equal(patches(x, (3, 2), (2, 1), (1, 0), (1, 2)), want)


def test_a_limit_draws_the_same_positions_of_both_networks_and_keeps_their_order():
    x = torch.arange(2 * 1 * 8 * 8, dtype=torch.float32).reshape(2, 1, 8, 8)
    drawn = patches(x, (1, 1), limit=40, seed=5)[:, 0]
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert len(drawn) == 40
    assert torch.equal(patches(x + 1000, (1, 1), limit=40, seed=5)[:, 0], drawn + 1000)
    assert not torch.equal(patches(x, (1, 1), limit=40, seed=6)[:, 0], drawn)


def test_positions_are_drawn_evenly():
    x = torch.arange(50, dtype=torch.float32).reshape(1, 1, 50)
    met = torch.stack([patches(x, (1,), limit=10, seed=seed)[:, 0] for seed in range(500)]).long()
    counts = torch.bincount(met.flatten(), minlength=50).double()
    # 500 draws of a position with probability 0.2: 100 ± 9, so that 5 deviations never happen by chance.
    assert (counts - 100).abs().max() < 45


def test_a_limit_above_the_number_of_positions_keeps_all():
    x = torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(patches(x, (3,), limit=100), patches(x, (3,)))
