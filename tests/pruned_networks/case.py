"""A small network with what can be pruned from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from networks.cases import noise, seeded

__all__ = ["Case", "case", "noise", "settled"]


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        name: for test ids.
        build: makes the network, seeded, in evaluation mode.
        inputs: positional arguments of one call.
        groups: name -> units of everything that can go.
        kept: module -> part of the reason why its outputs stay.
        attention: what may go from attention, see `find_groups`.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    groups: Mapping[str, int]
    kept: Mapping[str, str] = field(default_factory=dict)
    attention: str = "heads"


def case(
    build: Callable[[], nn.Module],
    *inputs: Tensor,
    groups: Mapping[str, int] | None = None,
    kept: Mapping[str, str] | None = None,
    attention: str = "heads",
    name: str = "",
) -> Case:
    """A case named after its class."""
    name = name or getattr(build, "__name__", "")
    return Case(name, settled(build), inputs, groups or {}, kept or {}, attention)


def settled(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A seeded build whose raw parameters and statistics are those of no particular value."""

    def build_settled() -> nn.Module:
        network = build()
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias" or parameter.ndim < 2:
                    with torch.no_grad():
                        parameter.add_(0.3 * torch.randn_like(parameter))
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
        return network

    return seeded(build_settled)
