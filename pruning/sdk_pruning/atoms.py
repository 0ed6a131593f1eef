"""Which slices of which parameters live and die together: union-find over the elements of axes."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Atoms = NDArray[np.int64]
"""One atom an element of an axis; `NONE` where the element can never go."""

NONE = -1

HEADS, DIMS, VALUES = "heads", "dims", "values"
"""What an axis of attention is: the heads, what queries and keys are multiplied over, what values carry. The
first of them counts where one axis is several."""


_RANK = (HEADS, DIMS, VALUES)


@dataclass(frozen=True)
class Slot:
    """One slice of a parameter or buffer, along one axis."""

    tensor: str
    axis: int
    index: int


@dataclass(frozen=True)
class Cover:
    """An axis that is the product of others: an element goes exactly where one of its factors goes.

    Attributes:
        elements: (n,) atoms of the axis.
        factors: each (n,): the atom of one factor at each element.
        module: whose code splits or merges it.
    """

    elements: Atoms
    factors: tuple[Atoms, ...]
    module: str


class Ties:
    """Everything that propagation finds out about atoms."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._slots: dict[int, Slot] = {}
        self._frozen: dict[int, str] = {}
        self._roles: dict[int, str] = {}
        self.covers: list[Cover] = []

    def new(self, count: int) -> Atoms:
        """Fresh atoms, tied to nothing."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def slices_of(self, tensor: str, axis: int, count: int) -> Atoms:
        """Fresh atoms for the slices of a parameter or buffer."""
        atoms = self.new(count)
        for index, atom in enumerate(atoms.tolist()):
            self._slots[atom] = Slot(tensor, axis, index)
        return atoms

    def root(self, atom: int) -> int:
        """The representative of an atom's class."""
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def roots(self, atoms: Atoms) -> Atoms:
        """The representatives, `NONE` where there is no atom."""
        return np.array([NONE if atom < 0 else self.root(atom) for atom in atoms.tolist()], np.int64)

    def tie(self, left: Atoms, right: Atoms, where: str) -> None:
        """Element by element: both go or both stay. What faces `NONE` is frozen."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            if one >= 0 and other >= 0:
                self._parent[self.root(one)] = self.root(other)
            elif one >= 0 or other >= 0:
                self._frozen.setdefault(max(one, other), f"{where} ties it to what cannot go")

    def freeze(self, atoms: Iterable[int], why: str) -> None:
        """None of them can ever go."""
        for atom in atoms:
            if atom >= 0:
                self._frozen.setdefault(atom, why)

    def mark(self, atoms: Atoms, role: str) -> None:
        """Says what an axis is: "heads", "dims"."""
        for atom in atoms.tolist():
            if atom >= 0:
                self._roles[atom] = min(role, self._roles.get(atom, role), key=_RANK.index)

    def cover(self, elements: Atoms, factors: tuple[Atoms, ...], module: str) -> None:
        """Says that an axis is a product: see `Cover`."""
        self.covers.append(Cover(elements, factors, module))

    def frozen(self) -> dict[int, str]:
        """Representative -> why its class cannot go."""
        reasons: dict[int, str] = {}
        for atom, why in self._frozen.items():
            reasons.setdefault(self.root(atom), why)
        return reasons

    def roles(self) -> dict[int, str]:
        """Representative -> role."""
        found: dict[int, str] = {}
        for atom, role in self._roles.items():
            root = self.root(atom)
            found[root] = min(role, found.get(root, role), key=_RANK.index)
        return found

    def classes(self) -> dict[int, tuple[Slot, ...]]:
        """Representative -> the slices that its class holds; empty for a class of factors only."""
        members: defaultdict[int, list[Slot]] = defaultdict(list)
        for atom in range(len(self._parent)):
            slots = members[self.root(atom)]
            if atom in self._slots:
                slots.append(self._slots[atom])
        return {root: tuple(slots) for root, slots in members.items()}
