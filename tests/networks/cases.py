"""What a network of the contract suite is: how to build it, what to feed it, which axes may vary."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Inputs:
    """What one call of `forward` is given."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One network with its inputs.

    Attributes:
        name: its key in `CASES`.
        build: makes the network; two calls give equal weights; eval mode.
        inputs: symbol sizes by keyword to the inputs at these sizes; two calls give equal tensors.
        sample: the sizes that are traced; empty for a static network.
        dynamic_shapes: `torch.export`'s nested form, keyed by the parameter names of `forward`.
        sizes: other sizes that the traced graph must be right at; the ends of the ranges are among them.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[..., Inputs]
    sample: Sizes = field(default_factory=dict)
    dynamic_shapes: dict[str, Any] | None = None
    sizes: tuple[Sizes, ...] = ()

    @property
    def sample_inputs(self) -> tuple[Any, ...]:
        """Positional inputs at the traced sizes."""
        return self.inputs(**self.sample).args

    @property
    def sample_kwargs(self) -> dict[str, Any]:
        """Keyword inputs at the traced sizes."""
        return dict(self.inputs(**self.sample).kwargs)


def seeded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Makes `build` reproducible, leaves torch's own generator alone, and puts the network in eval mode."""

    def build_seeded() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build()
            _settle_norms(network)
        return network.eval()

    return build_seeded


def _settle_norms(network: nn.Module) -> None:
    """Gives norms the statistics and affine terms of a trained network: a wrong fold must show."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float32, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(high: int, *shape: int, seed: int = 0) -> Tensor:
    """Uniform int64 in [0, high), the same at every call."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))
