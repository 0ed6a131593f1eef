"""Units: the smallest sets of slices that can leave a network together."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sdk_pruning.atoms import NONE, Slot, Ties
from sdk_pruning.propagation import Findings

Columns = Mapping[int, tuple[int, ...]]
"""number of a use -> positions on the axis that it sums over."""


@dataclass(frozen=True)
class Unit:
    """A set of slices that can only leave together, such as one channel through a whole residual stage.

    Attributes:
        slots: the slices of parameters and buffers.
        columns: where its features are summed over.
        role: "channels", or what its axis is in attention: "heads", "dims", "values".
        roots: representatives of the classes that it is made of.
    """

    slots: tuple[Slot, ...]
    columns: Columns
    role: str
    roots: frozenset[int]

    @property
    def signature(self) -> tuple[tuple[object, ...], ...]:
        """Equal for units that stand side by side in the same layers."""
        slices = Counter((slot.tensor, slot.axis) for slot in self.slots)
        reads = {(str(use), len(positions)): 1 for use, positions in self.columns.items()}
        return tuple(sorted((*key, count) for key, count in {**slices, **reads}.items()))


@dataclass(frozen=True)
class _Covered:
    """A cover with representatives in place of atoms."""

    elements: list[int]
    factors: list[list[int]]


class _Closure:
    """What must leave with a class, and whether that is possible at all."""

    def __init__(self, ties: Ties) -> None:
        self._covers = [
            _Covered(
                ties.roots(cover.elements).tolist(), [ties.roots(track).tolist() for track in cover.factors]
            )
            for cover in ties.covers
        ]
        self._implied: defaultdict[int, set[int]] = defaultdict(set)
        self._standing: defaultdict[int, list[tuple[_Covered, int]]] = defaultdict(list)
        for cover in self._covers:
            for track in cover.factors:
                for factor, element in zip(track, cover.elements, strict=True):
                    self._implied[factor].add(element)
            for position, element in enumerate(cover.elements):
                self._standing[element].append((cover, position))

    def of(self, root: int) -> frozenset[int]:
        """The class and every class that an axis takes along with it."""
        found, todo = {root}, [root]
        while todo:
            for element in self._implied.get(todo.pop(), ()):
                if element not in found:
                    found.add(element)
                    todo.append(element)
        return frozenset(found)

    def is_whole(self, closure: frozenset[int]) -> bool:
        """Whether split axes lose whole rows only: an element may go only where one of its factors goes."""
        if NONE in closure:
            return False
        return all(
            any(track[position] in closure for track in cover.factors)
            for element in closure
            for cover, position in self._standing.get(element, ())
        )

    def held_back(self, closure: frozenset[int], frozen: Mapping[int, str]) -> str:
        """Why a split axis cannot lose single elements."""
        factors = (
            track[position]
            for element in sorted(closure)
            for cover, position in self._standing.get(element, ())
            for track in cover.factors
        )
        why = next((frozen[factor] for factor in factors if factor in frozen), None)
        return "a reshape splits it into rows that must stay equal" + (f"; {why}" if why else "")

    @property
    def factors(self) -> set[int]:
        """Classes that take others along."""
        return set(self._implied) - {NONE}


def find_units(findings: Findings) -> tuple[list[Unit], dict[int, str]]:
    """All units, and for every class that cannot go the reason why.

    Returns:
        The units, and representative -> reason.
    """
    ties = findings.ties
    classes, roles, frozen = ties.classes(), ties.roles(), ties.frozen()
    closures = _Closure(ties)
    places = _places(findings)
    units, kept = [], dict(frozen)
    for root in sorted({root for root, slots in classes.items() if slots} | closures.factors):
        closure = closures.of(root)
        blocked = next((frozen[one] for one in sorted(closure) if one in frozen), None)
        if blocked is not None or not closures.is_whole(closure):
            kept.setdefault(root, blocked or closures.held_back(closure, frozen))
            continue
        slots = tuple(slot for one in sorted(closure) for slot in classes.get(one, ()))
        columns = _columns(closure, places)
        if slots and columns:
            units.append(Unit(slots, columns, roles.get(root, "channels"), closure))
    return units, kept


def _places(findings: Findings) -> dict[int, list[tuple[int, int]]]:
    """Representative -> (number of the use, position) where its features are summed over."""
    places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, use in enumerate(findings.uses):
        for track in use.columns:
            for position, root in enumerate(findings.ties.roots(track).tolist()):
                if root >= 0:
                    places[root].append((number, position))
    return places


def _columns(closure: frozenset[int], places: Mapping[int, list[tuple[int, int]]]) -> Columns:
    found: defaultdict[int, set[int]] = defaultdict(set)
    for root in closure:
        for number, position in places.get(root, ()):
            found[number].add(position)
    return {number: tuple(sorted(positions)) for number, positions in sorted(found.items())}
