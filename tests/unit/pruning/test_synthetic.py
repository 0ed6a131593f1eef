"""Distributional access only: calibration on inputs that are not the training data."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from samples.digits.training import accuracy
from sdk_pruning.prune import prune
from trained import digits, trained_network


def noisy() -> Iterator[Tensor]:
    """Digits with noise and shifts, without end."""
    generator = torch.Generator().manual_seed(0)
    images = digits().train_images
    while True:
        batch = images[torch.randint(len(images), (16,), generator=generator)]
        yield batch + 0.1 * images.std() * torch.randn(batch.shape, generator=generator)


def generated() -> Iterator[Tensor]:
    """Strokes that nobody wrote: bright blobs along random lines, with the digits' mean and spread."""
    generator = torch.Generator().manual_seed(0)
    images = digits().train_images
    grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1)
    while True:
        ends = torch.rand(16, 3, 2, 2, generator=generator) * 7
        along = torch.linspace(0, 1, 9)[:, None]
        points = ends[:, :, None, 0] * (1 - along) + ends[:, :, None, 1] * along  # (16, 3, 9, 2)
        gaps = (grid[None, :, :, None] - points.flatten(1, 2)[:, None, None]).square().sum(-1)
        strokes = functional.relu(1 - gaps.amin(-1) / 2)[:, None]
        yield (strokes - strokes.mean()) / strokes.std() * images.std() + images.mean()


@pytest.mark.parametrize(("source", "least"), [(noisy, 94), (generated, 75)])
def test_generated_inputs_calibrate(source, least: float) -> None:
    network, images, labels = trained_network("cnn"), digits().test_images, digits().test_labels
    result = prune(network, source(), sample_inputs=images[:1], ratio=0.5, round_to=1, samples=256)
    without = prune(
        network, source(), sample_inputs=images[:1], ratio=0.5, round_to=1, samples=256, compensation="none"
    )
    kept = accuracy(result.model, images, labels)
    assert kept > least
    assert kept > accuracy(without.model, images, labels)
