"""Groups: units that stand side by side in the same layers, so that some of them may go."""

import fnmatch
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from sdk_pruning.atoms import Slot
from sdk_pruning.axis_labels import Labels
from sdk_pruning.propagation import Findings, Use, state_of
from sdk_pruning.units import Unit, find_units
from sdk_runtimes.errors import ArgumentError, PruningError, UnknownChoiceError

ATTENTION = {"heads": ("heads",), "dims": ("dims", "values"), "none": ()}
"""What of attention may go -> roles of groups."""


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


def protect_(findings: Findings, patterns: Sequence[str]) -> None:
    """Keeps every tensor of the named modules as it is.

    Args:
        findings: of the walk.
        patterns: module paths, with `*` and `?` as in file names; what is below them is kept as well.

    Raises:
        ArgumentError: a pattern fits no module that has weights.
    """
    tensors = [label for label in findings.labels.values() if isinstance(label, Labels) and label.source]
    for pattern in patterns:
        fitting = [label for label in tensors if _below(_module(str(label.source)), pattern)]
        if not fitting:
            known = sorted({_module(str(label.source)) for label in tensors})
            raise ArgumentError(
                f"protect={pattern!r} fits no module with weights",
                why="the modules are " + ", ".join(known[:20]) + (" …" if len(known) > 20 else ""),
                fix="protect=('head', 'blocks.0.*'), paths as in model.named_modules()",
            )
        for label in fitting:
            findings.ties.freeze(label.atoms, f"protect={pattern!r}")


def protected_tensors(findings: Findings, patterns: Sequence[str]) -> frozenset[str]:
    """The tensors of the named modules."""
    sources = {
        str(label.source) for label in findings.labels.values() if isinstance(label, Labels) and label.source
    }
    return frozenset(
        source for source in sources if any(_below(_module(source), pattern) for pattern in patterns)
    )


def _below(module: str, pattern: str) -> bool:
    parts = module.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def _module(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def find_groups(findings: Findings, model: nn.Module, attention: str = "heads") -> Structure:
    """Sorts units into groups.

    Args:
        findings: of the walk, protection done.
        model: that was walked.
        attention: "heads" removes whole heads, "dims" dimensions of every head, "none" neither.

    Raises:
        PruningError: an operation without a rule stands where channels could go, or a layer that is called
            twice would be pruned.
        UnknownChoiceError: of `attention`.
    """
    if attention not in ATTENTION:
        raise UnknownChoiceError("attention", attention, ATTENTION)
    units, reasons = find_units(findings)
    writers = _writers(findings)
    by_signature: defaultdict[object, list[Unit]] = defaultdict(list)
    for unit in units:
        if any((slot.tensor, slot.axis) in writers for slot in unit.slots):
            by_signature[unit.signature].append(unit)
    candidates = [_group(same, writers) for same in by_signature.values() if len(same) > 1]
    groups = _without_overlap(candidates, ATTENTION[attention])
    _refuse_unknown(findings, groups)
    _refuse_shared(findings, groups)
    kept = _kept(findings, reasons, groups, writers)
    return Structure(_named_apart(groups), kept, findings, owners_of(model))


def owners_of(model: nn.Module) -> dict[str, nn.Module]:
    """Tensor name -> the module that holds it."""
    return {name: model.get_submodule(_module(name)) for name in state_of(model)}


def _writers(findings: Findings) -> dict[tuple[str, int], int]:
    """(weight, axis) that writes features -> when in the graph it first does."""
    order = {tensor: number for number, tensor in enumerate(findings.calls)}
    axes: dict[tuple[str, int], int] = {}
    for use in findings.uses:
        if use.weight is not None:
            axes[use.weight, _written_axis(use)] = order[use.weight]
    for tensor in findings.grouped:
        axes[tensor, 0] = order.get(tensor, len(order))
    for tensor in findings.tables:
        axes[tensor, 1] = order[tensor]
    return axes


def _written_axis(use: Use) -> int:
    return 1 - use.weight_axis


def _group(units: list[Unit], writers: Mapping[tuple[str, int], int]) -> Group:
    writing = [slot for slot in units[0].slots if (slot.tensor, slot.axis) in writers]
    first = min(writing, key=lambda slot: writers[slot.tensor, slot.axis])
    role = units[0].role
    name = _module(first.tensor) or first.tensor

    def place(unit: Unit) -> int:
        return min(
            slot.index for slot in unit.slots if (slot.tensor, slot.axis) == (first.tensor, first.axis)
        )

    ordered = tuple(sorted(units, key=place))
    return Group(name if role == "channels" else f"{name}:{role}", role, ordered)


def _without_overlap(groups: Iterable[Group], roles: Sequence[str]) -> list[Group]:
    """Of groups that share slices, the one that was asked for, else the one with more units."""
    wanted = [group for group in groups if group.role == "channels" or group.role in roles]
    wanted.sort(key=lambda group: (group.role == "channels", -len(group.units)))
    taken: set[Slot] = set()
    chosen = []
    for group in wanted:
        slots = {slot for unit in group.units for slot in unit.slots}
        if not slots & taken:
            taken |= slots
            chosen.append(group)
    return chosen


def _named_apart(groups: list[Group]) -> tuple[Group, ...]:
    seen: Counter[str] = Counter()
    named = []
    for group in groups:
        seen[group.name] += 1
        again = seen[group.name]
        named.append(group if again == 1 else Group(f"{group.name}#{again}", group.role, group.units))
    return tuple(sorted(named, key=lambda group: group.uses[0]))


def _refuse_unknown(findings: Findings, groups: Sequence[Group]) -> None:
    """An operation without a rule is an error only where something that could go meets it."""
    roots = frozenset[int]().union(*(unit.roots for group in groups for unit in group.units))
    for unknown in findings.unknown:
        if roots.isdisjoint(findings.ties.root(atom) for atom in unknown.atoms):
            continue
        module = unknown.module or "the model itself"
        raise PruningError(
            f"the operation {unknown.operation!r} in {module} is unknown",
            why="what it does to channels is not known, and nothing is guessed",
            fix=f"sdk.prune(…, protect=({unknown.module or '<the modules around it>'!r},)) keeps what it touches",
        )


def _refuse_shared(findings: Findings, groups: Sequence[Group]) -> None:
    """One weight in two places would need two compensations."""
    counts = Counter(use.weight for use in findings.uses if use.weight is not None)
    for group in groups:
        for slot in group.units[0].slots:
            if counts[slot.tensor] > 1:
                raise PruningError(
                    f"{_module(slot.tensor)} is called {counts[slot.tensor]} times in one forward pass",
                    why="its weights cannot be compensated for two places at once",
                    fix=f"sdk.prune(…, protect=({_module(slot.tensor)!r},)) keeps it",
                )


def _kept(
    findings: Findings,
    reasons: Mapping[int, str],
    groups: Sequence[Group],
    writers: Mapping[tuple[str, int], int],
) -> dict[str, str]:
    pruned = {(slot.tensor, slot.axis) for group in groups for slot in group.units[0].slots}
    kept = {}
    by_source = {
        label.source: label
        for label in findings.labels.values()
        if isinstance(label, Labels) and label.source
    }
    for tensor, axis in sorted(writers, key=lambda key: writers[key]):
        if (tensor, axis) not in pruned:
            roots = [
                findings.ties.root(int(atom)) for track in by_source[tensor].axes[axis] for atom in track
            ]
            kept[_module(tensor)] = next(
                (reasons[root] for root in roots if root in reasons), "nothing else can go with it"
            )
    return kept
