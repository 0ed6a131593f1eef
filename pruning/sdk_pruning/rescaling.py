"""Queries and keys that keep their products when the code's softmax scale follows the dims.

F.scaled_dot_product_attention divides by √D. With D' of D dims left the scores would grow by √(D / D'), so
queries and keys are each multiplied by (D' / D)^¼. Where one axis holds queries, keys and values, the values
are multiplied as well, and the layer that reads them divides by as much.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdk_pruning.groups import Group, Structure
from sdk_pruning.propagation import state_of
from sdk_pruning.removal import Removal, staying


@dataclass(frozen=True)
class Rescale:
    """Slices of a pruned tensor that are multiplied.

    Attributes:
        tensor: its name.
        axis: of the tensor.
        slices: indices along it, of the pruned tensor.
        factor: what they are multiplied by.
    """

    tensor: str
    axis: int
    slices: tuple[int, ...]
    factor: float


def rescales_of(
    model: nn.Module, structure: Structure, group: Group, removal: Removal, gone: int, *, values: bool
) -> list[Rescale]:
    """What must be multiplied when some dims of every head go.

    Args:
        model: dense.
        structure: names the layers that write queries and keys.
        group: of dims.
        removal: all that goes, for the numbering of what stays.
        gone: how many of the group's units.
        values: whether the group's axis holds the values as well.
    """
    factor = (1 - gone / len(group.units)) ** 0.25
    places = dict.fromkeys(_written(structure), factor)
    if values:
        places |= dict.fromkeys(_read(structure), 1 / factor)
    state, slices = state_of(model), defaultdict(set)
    for slot in (slot for unit in group.units for slot in unit.slots):
        if (slot.tensor, slot.axis) in places:
            slices[slot.tensor, slot.axis].add(slot.index)
    found = []
    for (tensor, axis), old in sorted(slices.items()):
        cut = removal.slices.get(tensor, {}).get(axis, ())
        kept = staying(state[tensor].shape[axis], cut).tolist()
        new = tuple(position for position, index in enumerate(kept) if index in old)
        found.append(Rescale(tensor, axis, new, places[tensor, axis]))
    return found


def _read(structure: Structure) -> set[tuple[str, int]]:
    """(weight, axis) that layers sum over."""
    return {(use.weight, use.weight_axis) for use in structure.findings.uses if use.weight is not None}


def _written(structure: Structure) -> set[tuple[str, int]]:
    """(tensor, axis) of layers' outputs: weights and biases."""
    places = set()
    for use in structure.findings.uses:
        if use.weight is not None:
            places.add((use.weight, 1 - use.weight_axis))
        if use.bias is not None:
            places.add((use.bias, 0))
    return places


def rescale_(model: nn.Module, rescales: Sequence[Rescale]) -> None:
    """Multiplies, in place."""
    state = state_of(model)
    with torch.no_grad():
        for rescale in rescales:
            state[rescale.tensor].copy_(_rescaled(state[rescale.tensor], rescale))


def rescaled(name: str, tensor: Tensor, changes: Sequence[object]) -> Tensor:
    """A tensor of a pruned network as it would be before rescaling, rescaled.

    Args:
        name: of the tensor. A bias that the layer did not have before goes with the weight's rows.
        tensor: cut.
        changes: of the plan; those of other kinds do not matter.
    """
    mine = [one for one in changes if isinstance(one, Rescale) and one.tensor == name]
    if not mine and name.endswith(".bias"):
        weight = name.removesuffix("bias") + "weight"
        # what a weight's columns are multiplied by is not the bias's business
        mine = [one for one in changes if isinstance(one, Rescale) and (one.tensor, one.axis) == (weight, 0)]
    for rescale in mine:
        tensor = _rescaled(tensor, rescale)
    return tensor


def _rescaled(tensor: Tensor, rescale: Rescale) -> Tensor:
    factors = torch.ones(tensor.shape[rescale.axis], dtype=tensor.dtype, device=tensor.device)
    factors[list(rescale.slices)] = rescale.factor
    return tensor * factors.reshape(-1, *(1,) * (tensor.ndim - rescale.axis - 1))
