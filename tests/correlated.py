"""Correlated features, and layers that read them, for the tests of pruning's mathematics."""

import torch
from torch import Tensor

from sdk_pruning.components import Consumer


def features(samples: int, count: int, seed: int, *, rank: int | None = None) -> Tensor:
    """Zero-mean correlated features of very different size, float64 (samples, count)."""
    generator = torch.Generator().manual_seed(seed)
    inner = rank or count
    mix = torch.randn(inner, count, generator=generator, dtype=torch.float64)
    mix *= torch.arange(1, inner + 1, dtype=torch.float64).pow(-0.7)[:, None]
    scales = 0.2 + torch.rand(count, generator=generator, dtype=torch.float64)
    x = torch.randn(samples, inner, generator=generator, dtype=torch.float64) @ mix * scales
    return x - x.mean(0)


def weights(outputs: int, inputs: int, seed: int) -> Tensor:
    """Float64 (outputs, inputs)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)


def second_moment(x: Tensor) -> Tensor:
    """E[x xᵀ]."""
    return x.T @ x / len(x)


def consumer(units: int, block: int = 1, outputs: int = 4, seed: int = 0, *, fixed: int = 0) -> Consumer:
    """A layer that reads `units` blocks of columns in shuffled places, and some columns of no unit."""
    count = units * block + fixed
    places = torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1))
    columns = tuple(places[unit * block : (unit + 1) * block] for unit in range(units))
    second = second_moment(features(4 * count, count, seed))
    return Consumer(f"layer{seed}", weights(outputs, count, seed), second, columns, block)
