"""How a module's code follows when its weights shrink: tried out, group by group."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from sdk_pruning.attributes import NAMES, shrunk
from sdk_pruning.calls import Call
from sdk_pruning.changes import Change, Reset
from sdk_pruning.checking import TOLERANCE, attempt, cut_copy, difference
from sdk_pruning.groups import Group, Structure
from sdk_pruning.masking import masked_outputs
from sdk_pruning.propagation import state_of
from sdk_pruning.removal import Removed, removal_of
from sdk_pruning.rescaling import rescales_of
from sdk_pruning.resizing import Resize
from sdk_pruning.sizes import Place, places_of, sizes_at
from sdk_pruning.tracing import Traced

_ROUNDING = 2e-6
"""Of outputs in float32, relative to the largest: what is above has another cause."""


@dataclass(frozen=True)
class Adapter:
    """What follows when units of a group go.

    Attributes:
        names: attributes of the modules that split the group's axis.
        rescaled: what is multiplied since the code's softmax scale follows the dims: nothing (""), queries
            and "keys", or the "values" of the same axis as well.
        places: numbers in the modules' code.
    """

    names: tuple[str, ...] = ()
    rescaled: str = ""
    places: tuple[Place, ...] = ()


def adapted(
    model: nn.Module, traced: Traced, structure: Structure, call: Call
) -> tuple[Structure, dict[str, Adapter]]:
    """Tries every group with some units removed, and drops those whose module's code cannot follow.

    Returns:
        The structure with the groups that work, and group -> what follows.
    """
    trial = _Trial(model, traced, structure, call)
    kept, found = dict(structure.kept), _at_once(trial, structure.groups)
    for group in structure.groups:
        if group.name in found:
            continue
        others = [other for other in structure.groups if other.name in found]
        adapter, reason = _found(trial, others, group, found)
        if adapter is None:
            kept[group.name] = f"its code cannot follow: {reason}"
        else:
            found[group.name] = adapter
    groups = tuple(group for group in structure.groups if group.name in found)
    return Structure(groups, kept, structure.findings, structure.owners), found


def _at_once(trial: "_Trial", groups: Sequence[Group]) -> dict[str, Adapter]:
    """The groups that work as they are, if they do so together: all of them, else those of plain channels."""
    narrowed = any(group.role == "dims" for group in groups)  # needs a closer look
    plain = [group for group in groups if group.role == "channels"]
    for some in ([] if narrowed else groups, plain):
        adapters = {group.name: _variants(group)[0] for group in some}
        if some and trial.gap(some, adapters)[0] <= TOLERANCE:
            return adapters
    return {}


def _found(
    trial: "_Trial", others: Sequence[Group], group: Group, known: Mapping[str, Adapter]
) -> tuple[Adapter | None, str]:
    """What makes a group work beside the others, or None and what goes wrong."""
    reasons: list[str] = []
    for by_places in (False, True):
        tried = {}
        for adapter in _placed(group, trial.places(group)) if by_places else _variants(group):
            gap, reason = trial.gap((*others, group), {**known, group.name: adapter})
            reasons.append(reason)
            if gap <= TOLERANCE:
                tried[adapter] = gap
                if group.role != "dims":
                    break
        best = _closest(tried)
        if best is not None:
            return best, ""
    return None, reasons[0]


def _closest(tried: Mapping[Adapter, float]) -> Adapter | None:
    """The first of those that come as close as rounding allows: small scores hide a wrong softmax scale."""
    enough = max(4 * min(tried.values(), default=0.0), _ROUNDING)
    return next((adapter for adapter, gap in tried.items() if gap <= enough), None)


def _variants(group: Group) -> tuple[Adapter, ...]:
    names = NAMES.get(group.role, ((),))
    return tuple(Adapter(each, scaled) for scaled in _scales(group) for each in names)


def _placed(group: Group, places: tuple[Place, ...]) -> tuple[Adapter, ...]:
    return tuple(Adapter((), scaled, places) for scaled in _scales(group)) if places else ()


def _scales(group: Group) -> tuple[str, ...]:
    return ("", "keys", "values") if group.role == "dims" else ("",)


def changes_of(
    model: nn.Module, structure: Structure, removed: Removed, adapters: Mapping[str, Adapter]
) -> list[Change]:
    """Everything that follows when units go.

    Args:
        model: dense.
        structure: its groups.
        removed: units that go.
        adapters: group -> what follows.
    """
    changes: list[Change] = []
    removal = removal_of(structure, removed)
    for group in structure.groups:
        gone, adapter = len(removed.get(group.name, ())), adapters.get(group.name, Adapter())
        if not gone:
            continue
        for module in splitting_modules(structure, group) if adapter.names else ():
            changes += shrunk(model, module, adapter.names, len(group.units) - gone, len(group.units))
        if adapter.rescaled:
            values = adapter.rescaled == "values"
            changes += rescales_of(model, structure, group, removal, gone, values=values)
    changes += _followed(structure, removed)
    reset = {change.module for change in changes if isinstance(change, Reset)}
    places = {
        place
        for name, adapter in adapters.items()
        for place in adapter.places
        if removed.get(name) or place.module in reset  # another group's attribute may change the same numbers
    }
    for place in sorted(places):
        size = sizes_at(structure, removed, place)
        changes.append(Resize(place.module, place.call, place.position, size))
    return changes


def _followed(structure: Structure, removed: Removed) -> list[Change]:
    """Sizes that norms without parameters keep."""
    gone = structure.roots(removed)
    ties, found = structure.findings.ties, []
    for counted in structure.findings.counted:
        lost = sum(root in gone for root in ties.roots(counted.atoms).tolist())
        if lost:
            found.append(Reset(counted.module, counted.attribute, len(counted.atoms) - lost))
    return list(found)


def splitting_modules(structure: Structure, group: Group) -> list[str]:
    """The modules whose code splits the group's axis off, such as the attention of a group of heads."""
    ties = structure.findings.ties
    roots = frozenset[int]().union(*(unit.roots for unit in group.units))
    return sorted(
        {
            cover.module
            for cover in ties.covers
            if cover.module
            and any(not roots.isdisjoint(ties.roots(track).tolist()) for track in cover.factors)
        }
    )


class _Trial:
    """Runs the cut network and the masked one."""

    def __init__(self, model: nn.Module, traced: Traced, structure: Structure, call: Call) -> None:
        self._model, self._traced, self._structure, self._call = model, traced, structure, call

    def gap(self, groups: Sequence[Group], adapters: Mapping[str, Adapter]) -> tuple[float, str]:
        """How far a network without some units of each group is from the masked one, and what that means."""
        removed = {group.name: _last(group) for group in groups}
        removal = removal_of(self._structure, removed)
        changes = changes_of(self._model, self._structure, removed, adapters)
        resets = Counter((one.module, one.attribute) for one in changes if isinstance(one, Reset))
        if any(count > 1 for count in resets.values()):
            return float(
                "inf"
            ), "two groups would set the same attribute"  # to numbers that only here are equal
        found, reason = attempt(cut_copy(self._model, self._structure, removal, changes), self._call)
        if found is None:
            return float("inf"), reason
        state = state_of(self._model)
        expected = masked_outputs(self._traced, self._structure, state, removal, self._call)
        gap = difference(found, expected)
        return gap, f"the pruned network differs from the masked one by {gap:.2g}"

    def places(self, group: Group) -> tuple[Place, ...]:
        """Numbers in the code that do not follow by themselves when one or half of the units go."""
        count = len(group.units)
        found: set[Place] = set()
        for gone in {1, count // 2}:
            removed = {group.name: tuple(range(count - gone, count))}
            cut = cut_copy(self._model, self._structure, removal_of(self._structure, removed), ())
            found |= places_of(self._model, cut, self._traced, self._structure, removed, self._call)
        return tuple(sorted(found))


def _last(group: Group) -> tuple[int, ...]:
    """One unit, of dims half of them: a wrong softmax scale must show."""
    count = len(group.units)
    return tuple(range(count - (count // 2 if group.role == "dims" else 1), count))
