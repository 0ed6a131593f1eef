"""Sorts units into groups that can be ranked."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from sdk_pruning.atoms import DIMS, HEADS, VALUES, Slot
from sdk_pruning.groups import Group, Structure, module_of_tensor, owners_of
from sdk_pruning.propagation import Findings
from sdk_pruning.reasons import reasons_for, refuse_shared, refuse_unknown
from sdk_pruning.units import Unit, find_units
from sdk_runtimes.errors import UnknownChoiceError

ATTENTION = {"heads": (HEADS,), "dims": (DIMS, VALUES), "none": ()}
"""What of attention may go -> roles of groups."""


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
    refuse_unknown(findings, [unit for group in candidates for unit in group.units], writers)
    refuse_shared(findings, groups)
    kept = reasons_for(findings, reasons, candidates, groups, writers)
    return Structure(_named_apart(groups), kept, findings, owners_of(model))


def _writers(findings: Findings) -> dict[tuple[str, int], int]:
    """(weight, axis) that writes features -> when in the graph it first does."""
    order = {tensor: number for number, tensor in enumerate(findings.calls)}
    axes: dict[tuple[str, int], int] = {}
    for use in findings.uses:
        if use.weight is not None:
            axes[use.weight, 1 - use.weight_axis] = order[use.weight]
    for tensor in findings.grouped:
        axes[tensor, 0] = order.get(tensor, len(order))
    for tensor in findings.tables:
        axes[tensor, 1] = order[tensor]
    return axes


def _group(units: list[Unit], writers: Mapping[tuple[str, int], int]) -> Group:
    writing = [slot for slot in units[0].slots if (slot.tensor, slot.axis) in writers]
    first = min(writing, key=lambda slot: writers[slot.tensor, slot.axis])
    role = units[0].role
    name = module_of_tensor(first.tensor) or first.tensor

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
