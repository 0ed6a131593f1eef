"""Why something cannot go: refusals, and the reason for every layer that stays."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sdk_pruning.atoms import Slot
from sdk_pruning.axis_labels import Labels
from sdk_pruning.groups import Group, module_of_tensor
from sdk_pruning.propagation import Findings, Unknown
from sdk_pruning.units import Unit
from sdk_runtimes.errors import PruningError

Writers = Mapping[tuple[str, int], int]
"""(weight, axis) that writes features -> when in the graph it first does."""


def refuse_unknown(findings: Findings, units: Iterable[Unit], writers: Writers) -> None:
    """An operation without a rule is an error only where something that could go meets it.

    Raises:
        PruningError: names the operation.
    """
    if not findings.unknown:
        return
    prunable = {root for unit in units for root in unit.roots}
    written = _unfrozen(findings, writers)
    for unknown in findings.unknown:
        met = _with_elements(findings, {findings.ties.root(atom) for atom in unknown.atoms})
        modules = sorted({written[root] for root in met & written.keys()})
        if modules or not prunable.isdisjoint(met):
            raise _unknown(unknown, modules)


def _unknown(unknown: Unknown, modules: Sequence[str]) -> PruningError:
    names = ", ".join(repr(module) for module in modules) or "<the modules before it>"
    return PruningError(
        f"the operation {unknown.operation!r} in {unknown.module or 'the model itself'} is unknown",
        why="what it does to channels is not known, and nothing is guessed",
        fix=f"sdk.prune(…, protect=({names},)) keeps what it reads",
    )


def _unfrozen(findings: Findings, writers: Writers) -> dict[int, str]:
    """Representatives of what layers write and nothing holds back -> module of the layer."""
    frozen = findings.ties.frozen()
    return {
        root: module_of_tensor(slot.tensor)
        for root, slots in findings.ties.classes().items()
        for slot in slots
        if (slot.tensor, slot.axis) in writers and root not in frozen
    }


def _with_elements(findings: Findings, roots: set[int]) -> set[int]:
    """The classes and those of the axes whose factors they are."""
    ties, found = findings.ties, set(roots)
    for cover in ties.covers:
        elements = ties.roots(cover.elements).tolist()
        for track in cover.factors:
            found |= {
                element
                for factor, element in zip(ties.roots(track).tolist(), elements, strict=True)
                if factor in roots
            }
    return found - {-1}


def refuse_shared(findings: Findings, groups: Sequence[Group]) -> None:
    """One weight in two places would need two compensations.

    Raises:
        PruningError: names the layer.
    """
    counts = Counter(use.weight for use in findings.uses if use.weight is not None)
    for group in groups:
        for slot in group.units[0].slots:
            if counts[slot.tensor] > 1:
                module = module_of_tensor(slot.tensor)
                raise PruningError(
                    f"{module} is called {counts[slot.tensor]} times in one forward pass",
                    why="its weights cannot be compensated for two places at once",
                    fix=f"sdk.prune(…, protect=({module!r},)) keeps it",
                )


def reasons_for(
    findings: Findings,
    reasons: Mapping[int, str],
    candidates: Sequence[Group],
    chosen: Sequence[Group],
    writers: Writers,
) -> dict[str, str]:
    """Module -> why its outputs stay.

    Args:
        findings: of the walk.
        reasons: representative -> why its class stays.
        candidates: groups that could go.
        chosen: those of them that may.
        writers: the layers.
    """
    pruned = _axes(chosen)
    kept = {
        use.module: "its weight is computed by the code"
        for use in findings.uses
        if use.weight is None and use.kind != "product"
    }
    by_source = {
        label.source: label
        for label in findings.labels.values()
        if isinstance(label, Labels) and label.source
    }
    for tensor, axis in sorted(writers, key=lambda key: writers[key]):
        if (tensor, axis) in pruned:
            continue
        rival = next((group for group in candidates if (tensor, axis) in _axes([group])), None)
        tracks = by_source[tensor].axes[axis]
        roots = [findings.ties.root(int(atom)) for track in tracks for atom in track]
        known = (reasons[root] for root in roots if root in reasons)
        kept[module_of_tensor(tensor)] = (
            _rivalry(rival, chosen) if rival is not None else next(known, "nothing that could go reads it")
        )
    return kept


def _rivalry(group: Group, chosen: Sequence[Group]) -> str:
    slots = _slots(group)
    other = next((one for one in chosen if slots & _slots(one)), None)
    if other is not None:
        return f"what reads it goes with {other.name!r}"
    return f"attention= leaves the {group.role} of attention as they are"


def _slots(group: Group) -> set[Slot]:
    return {slot for unit in group.units for slot in unit.slots}


def _axes(groups: Sequence[Group]) -> set[tuple[str, int]]:
    return {(slot.tensor, slot.axis) for group in groups for slot in group.units[0].slots}
