"""What both sides of the pruning benchmarks are measured by."""

import pytest
import torch

from benchmarks.peers.measures import deviation, flops, logits, reestimate_norms_
from samples.digits.networks import digits_cnn

IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_flops_are_two_a_multiply_add():
    assert flops(torch.nn.Conv2d(3, 5, 3, padding=1), torch.zeros(1, 3, 8, 8)) == 2 * 64 * 9 * 3 * 5


def test_reestimated_norms_have_the_statistics_of_the_images():
    network = digits_cnn()
    assert reestimate_norms_(network, [IMAGES]) is network
    features = network.stem[0](IMAGES)
    torch.testing.assert_close(network.stem[1].running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(network.stem[1].running_var, features.var((0, 2, 3)))
    assert network.stem[1].momentum == 0.1
    assert not network.training


def test_deviation_of_twice_the_truth_is_one_and_agrees():
    dense = torch.eye(4)
    assert deviation(2 * dense, dense).energy == pytest.approx(1.0)
    assert deviation(2 * dense, dense).agreement == 1.0
    half = deviation(dense * 0.5, dense)
    assert (half.energy, half.rmse) == (pytest.approx(0.25), pytest.approx(0.5))
    assert deviation(dense.roll(1, 1), dense).agreement == 0.0


def test_logits_in_batches_are_the_logits():
    network = digits_cnn(4)
    torch.testing.assert_close(logits(network, IMAGES, batch=7), network(IMAGES).detach())
