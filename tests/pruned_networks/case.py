"""A small network, and what is found out about it."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from networks.cases import seeded
from sdk_pruning.adapting import Adapter, adapted, changes_of
from sdk_pruning.calls import Call
from sdk_pruning.changes import Change
from sdk_pruning.checking import cut_copy, difference, outputs_of, refuse_difference
from sdk_pruning.grouping import find_groups
from sdk_pruning.groups import Structure
from sdk_pruning.propagation import propagate
from sdk_pruning.protecting import protect_
from sdk_pruning.removal import removal_of
from sdk_pruning.rules.table import RULES
from sdk_pruning.tracing import Traced, trace

Removed = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        name: for test ids.
        build: makes the network, seeded, in evaluation mode.
        inputs: positional arguments of one call.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[Any, ...]


def case(build: Callable[[], nn.Module], *inputs: Tensor, name: str = "") -> Case:
    """A case named after its class."""
    return Case(name or getattr(build, "__name__", ""), settled(build), inputs)


def settled(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A seeded build whose vectors and statistics have no special values."""

    def build_settled() -> nn.Module:
        network = build()
        for module in network.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.ndim < 2:
                    with torch.no_grad():
                        parameter.add_(0.3 * torch.randn_like(parameter))
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
        return network

    return seeded(build_settled)


@dataclass(frozen=True)
class Studied:
    """A network, and all that surgery needs to know."""

    model: nn.Module
    call: Call
    traced: Traced
    structure: Structure
    adapters: Mapping[str, Adapter]

    @property
    def widths(self) -> dict[str, int]:
        """Group -> units."""
        return {group.name: len(group.units) for group in self.structure.groups}

    def removal(self, seed: int) -> Removed:
        """Some units of every group, at least one stays."""
        draw = random.Random(seed)
        return {
            name: tuple(sorted(draw.sample(range(units), draw.randint(1, units - 1))))
            for name, units in self.widths.items()
        }

    def changes(self, removed: Removed) -> list[Change]:
        """What follows."""
        return changes_of(self.model, self.structure, removed, self.adapters)

    def cut(self, removed: Removed) -> nn.Module:
        """A copy without the units."""
        return cut_copy(
            self.model, self.structure, removal_of(self.structure, removed), self.changes(removed)
        )

    def gap(self, removed: Removed, calls: Sequence[Call] = ()) -> float:
        """Difference between cut and masked network; raises above 1e-4."""
        cut = self.cut(removed)
        calls = calls or [self.call]
        return refuse_difference(cut, self.traced, self.structure, self.model, removed, calls)

    def moved(self, removed: Removed) -> float:
        """Difference between cut and dense network: a removal that changes nothing tests nothing."""
        return difference(outputs_of(self.cut(removed), self.call), outputs_of(self.model, self.call))


def studied(
    model: nn.Module, inputs: tuple[Any, ...], *, attention: str = "heads", protect: Sequence[str] = ()
) -> Studied:
    """Does what `sdk.prune` does before it decides anything."""
    call = Call(inputs)
    traced = trace(model, call)
    findings = propagate(traced, model, call, RULES)
    protect_(findings, protect)
    structure, adapters = adapted(model, traced, find_groups(findings, model, attention), call)
    return Studied(model, call, traced, structure, adapters)
