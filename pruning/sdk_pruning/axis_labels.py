"""What each axis of a tensor in the graph is tied to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdk_pruning.atoms import NONE, Atoms, Ties

Axis = tuple[Atoms, ...]
"""Tracks of one axis, each (size,): an element goes when an atom of any track goes. No track: it stays."""


@dataclass(frozen=True)
class Labels:
    """A tensor in the graph.

    Attributes:
        shape: at the sample inputs.
        axes: one entry an axis.
        source: its name in the model, where it is a parameter or buffer as it stands there.
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    source: str | None = None

    @property
    def atoms(self) -> list[int]:
        """All atoms in it."""
        return [atom for axis in self.axes for track in axis for atom in track.tolist() if atom >= 0]

    def axis(self, index: int) -> Axis:
        """One axis, counted from the end where negative."""
        return self.axes[index]

    def with_axis(self, index: int, axis: Axis) -> "Labels":
        """The same with another axis."""
        axes = list(self.axes)
        axes[index] = axis
        return Labels(self.shape, tuple(axes))


def bare(shape: Sequence[int]) -> Labels:
    """A tensor none of whose axes is tied to anything."""
    return Labels(tuple(shape), ((),) * len(shape))


def equate(ties: Ties, left: Axis, right: Axis, where: str, module: str = "") -> Axis:
    """Two axes that face each other element by element: where one loses an element, so does the other.

    Args:
        ties: learns about it.
        left: of one operand.
        right: of the other, as long.
        where: the operation, for messages.
        module: whose code it is.

    Returns:
        The axis of the result.
    """
    if not left or not right:
        for track in left or right:
            ties.freeze(track.tolist(), f"{where} pairs it with an axis of fixed size")
        return left or right
    pairs = _paired(left, right)
    if pairs is not None:
        for one, other in pairs:
            ties.tie(one, other, where)
    elif len(left) == 1:
        ties.cover(left[0], right, module)
    elif len(right) == 1:
        ties.cover(right[0], left, module)
    else:
        for track in (*left, *right):
            ties.freeze(track.tolist(), f"{where} pairs axes that were merged from different ones")
    return left if len(left) >= len(right) else right


def _paired(left: Axis, right: Axis) -> list[tuple[Atoms, Atoms]] | None:
    """Tracks of equal pattern, or None where they do not match one to one."""
    if len(left) != len(right):
        return None
    if len(left) == 1:
        return [(left[0], right[0])]
    rest, pairs = list(right), []
    for one in left:
        other = next((track for track in rest if _same_pattern(one, track)), None)
        if other is None:
            return None
        rest = [track for track in rest if track is not other]
        pairs.append((one, other))
    return pairs


def _same_pattern(one: Atoms, other: Atoms) -> bool:
    """Whether equal elements of one are equal in the other, and the reverse."""
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


def freeze(ties: Ties, axis: Axis, why: str) -> None:
    """Nothing on this axis can go."""
    for track in axis:
        ties.freeze(track.tolist(), why)


def padded(track: Atoms, before: int, after: int) -> Atoms:
    """A track with elements beside it that stay."""
    return np.concatenate((np.full(before, NONE), track, np.full(after, NONE))).astype(np.int64)
