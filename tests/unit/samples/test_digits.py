"""The digits, and the networks that learn them."""

import pytest
import torch
from torch import nn

from samples.digits.data import calibration_images, load_digits
from samples.digits.networks import digits_cnn
from samples.digits.training import RECIPES, accuracy, shifted, train


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_the_split_is_the_same_every_time_and_uses_every_image_once(digits):
    again = load_digits()
    assert torch.equal(digits.test_images, again.test_images)
    assert (len(digits.train_labels), len(digits.test_labels)) == (1200, 597)
    both = torch.cat((digits.train_images, digits.test_images)).flatten(1)
    assert len(both.unique(dim=0)) == 1797
    assert (both.min(), both.max()) == (-1, 1)


def test_calibration_images_are_training_images_without_repetition(digits):
    chosen = calibration_images(digits, 256, seed=1).flatten(1)
    assert len(chosen.unique(dim=0)) == 256
    known = {bytes(image.numpy()) for image in digits.train_images.flatten(1)}
    assert all(bytes(image.numpy()) in known for image in chosen)
    assert not torch.equal(chosen, calibration_images(digits, 256, seed=2).flatten(1))


def test_shifted_images_are_the_image_moved_by_at_most_one_pixel(digits):
    images = digits.train_images[:64]
    moved = shifted(images, torch.Generator().manual_seed(0))
    padded = nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)
    options = torch.stack([padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)])
    same = (options == moved).all(dim=(2, 3, 4))  # (9, 64)
    assert same.any(0).all()
    assert 16 <= int(same[4].sum()) < 64  # some stay, some move


@pytest.mark.parametrize("name", RECIPES)
def test_a_seed_gives_the_same_weights_and_leaves_the_callers_generator_alone(name):
    before = torch.get_rng_state()
    first, again, other = (RECIPES[name].build(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    weights = [nn.utils.parameters_to_vector(network.parameters()) for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not first.training
    assert first(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_training_learns_and_keeps_the_thread_count(digits):
    threads = torch.get_num_threads()
    network = digits_cnn(8)
    before = accuracy(network, digits.test_images, digits.test_labels)
    assert train(network, digits, epochs=2) is network
    after = accuracy(network, digits.test_images, digits.test_labels)
    assert before < 30
    assert after > 50
    assert torch.get_num_threads() == threads
    assert not network.training


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("cnn", 99.0), ("vit", 97.0), ("mobile", 98.0)])
def test_the_recipes_reach_what_the_benchmark_starts_from(name, least, digits):
    from samples.digits.training import trained

    network = trained(name, digits)
    assert accuracy(network, digits.test_images, digits.test_labels) >= least
