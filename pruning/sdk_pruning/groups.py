"""Groups: units that stand side by side in the same layers, so that some of them may go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from sdk_pruning.propagation import Findings, state_of
from sdk_pruning.units import Unit
from sdk_runtimes.errors import UnknownChoiceError


@dataclass(frozen=True)
class Group:
    """Units that can be ranked against each other.

    Attributes:
        name: module that writes its features; ":heads" and the like appended in attention.
        role: "channels", "heads", "dims" or "values".
        units: in the order of the features.
    """

    name: str
    role: str
    units: tuple[Unit, ...]

    @property
    def uses(self) -> tuple[int, ...]:
        """Numbers of the uses that read its features."""
        return tuple(self.units[0].columns)


@dataclass(frozen=True)
class Structure:
    """What can go from a network, and why the rest cannot.

    Attributes:
        groups: that can be pruned.
        kept: module -> why its outputs stay.
        findings: of the walk over the graph.
        owners: tensor name -> the module of the dense model that holds it.
    """

    groups: tuple[Group, ...]
    kept: Mapping[str, str]
    findings: Findings
    owners: Mapping[str, nn.Module] = field(default_factory=dict)

    def roots(self, removed: Mapping[str, Sequence[int]]) -> frozenset[int]:
        """Representatives of the classes that go with the given units of groups."""
        gone = [self.group(name).units[number] for name, numbers in removed.items() for number in numbers]
        return frozenset[int]().union(*(unit.roots for unit in gone))

    def group(self, name: str) -> Group:
        """One group.

        Raises:
            UnknownChoiceError: there is none of that name.
        """
        found = next((group for group in self.groups if group.name == name), None)
        if found is None:
            raise UnknownChoiceError("group", name, [group.name for group in self.groups])
        return found


def owners_of(model: nn.Module) -> dict[str, nn.Module]:
    """Tensor name -> the module that holds it."""
    return {name: model.get_submodule(module_of_tensor(name)) for name in state_of(model)}


def module_of_tensor(tensor: str) -> str:
    """Path of the module that a tensor belongs to."""
    return tensor.rpartition(".")[0]
