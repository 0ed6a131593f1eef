"""What a choice of units takes out of tensors, and where the same can be had by masking."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdk_pruning.groups import Structure

Removed = Mapping[str, tuple[int, ...]]
"""group name -> units that go."""


@dataclass(frozen=True)
class Removal:
    """Slices to cut, and features to mask.

    Attributes:
        slices: tensor name -> axis -> indices that go, sorted.
        masks: number of a use -> positions of its features that go, sorted.
    """

    slices: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    masks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


def removal_of(structure: Structure, removed: Removed) -> Removal:
    """What goes with the given units.

    Raises:
        UnknownChoiceError: there is no group of a given name.
    """
    slices: defaultdict[str, defaultdict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    masks: defaultdict[int, set[int]] = defaultdict(set)
    for name, numbers in removed.items():
        units = structure.group(name).units
        for number in numbers:
            for slot in units[number].slots:
                slices[slot.tensor][slot.axis].add(slot.index)
            for use, positions in units[number].columns.items():
                masks[use].update(positions)
    return Removal(
        {
            tensor: {axis: tuple(sorted(gone)) for axis, gone in axes.items()}
            for tensor, axes in slices.items()
        },
        {use: tuple(sorted(positions)) for use, positions in masks.items()},
    )


def staying(size: int, gone: tuple[int, ...]) -> Tensor:
    """The indices that stay, int64."""
    mask = torch.ones(size, dtype=torch.bool)
    mask[list(gone)] = False
    return mask.nonzero().flatten()


def cut(tensor: Tensor, axes: Mapping[int, tuple[int, ...]]) -> Tensor:
    """A tensor without the given slices, contiguous."""
    for axis, gone in axes.items():
        tensor = tensor.index_select(axis, staying(tensor.shape[axis], gone))
    return tensor.contiguous()
