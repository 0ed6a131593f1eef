"""The peer is used rightly: it removes what was asked for, and the network we gave stays as it was."""

import copy

import pytest
import torch

torch_pruning = pytest.importorskip("torch_pruning")

from benchmarks.peers.measures import flops  # noqa: E402 (needs the peer)
from benchmarks.peers.torch_pruning_peer import (  # noqa: E402 (needs the peer)
    IMPORTANCES,
    SCOPES,
    TOLERANCE,
    Criterion,
    Peer,
    prune_to_flops,
)
from samples.digits.networks import digits_cnn, digits_mobile  # noqa: E402 (after the skip)

pytestmark = pytest.mark.peer

SAMPLE = torch.zeros(1, 1, 8, 8)
IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
KEEP = ("classifier",)


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_half_of_every_group_goes(importance):
    pruned = Peer(digits_cnn(), SAMPLE, IMAGES, KEEP).at_ratio(0.5, Criterion(importance))
    widths = [
        pruned.get_submodule(f"{name}.0").out_channels
        for name in ("stem", "block1", "block2", "down", "last")
    ]
    assert widths == [16, 16, 16, 32, 32]
    assert pruned(IMAGES).shape == (32, 10)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("importance", ["magnitude", "activation", "random"])
def test_flops_are_met_from_above_and_the_network_stays(importance, scope):
    network = digits_mobile()
    before = copy.deepcopy(network.state_dict())
    pruned, ratio = prune_to_flops(network, SAMPLE, 0.6, Criterion(importance, scope), IMAGES, keep=KEEP)
    assert 0 < ratio < 1
    assert (
        0.6 <= flops(pruned, SAMPLE) / flops(network, SAMPLE) <= 0.6 + 3 * TOLERANCE
    )  # small widths: big steps
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_activation_criterion_removes_dead_channels_first():
    network = digits_cnn()
    with torch.no_grad():
        network.block1[1].weight[:16] = 0  # bias 0 and ReLU: nothing arrives from these
    pruned = Peer(network, SAMPLE, IMAGES, KEEP).at_ratio(0.5, Criterion("activation"))
    assert (pruned.block1[1].weight != 0).all()


def test_random_follows_its_seed():
    peer = Peer(digits_cnn(), SAMPLE, IMAGES, KEEP)
    first, again, other = (peer.at_ratio(0.5, Criterion("random", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
