"""Cuts slices out of a model's tensors, in place, and lets the numbers beside them follow."""

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor, nn

from sdk_pruning.attributes import follow_weights_
from sdk_pruning.propagation import state_of
from sdk_pruning.removal import Removal, cut


def cut_(model: nn.Module, removal: Removal, grouped: Mapping[str, int]) -> None:
    """Removes slices from parameters and buffers, in place.

    Args:
        model: whose tensors have the sizes that the removal was made for.
        removal: what goes.
        grouped: weight of a grouped layer -> its groups before.
    """
    names = _aliases(model)
    for tensor, axes in removal.slices.items():
        old = state_of(model)[tensor]
        new = cut(old.detach(), axes)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        groups = _groups(tensor, axes, old, grouped)
        for alias in names[tensor]:
            _replace_(model, alias, new, groups)


def _groups(
    tensor: str, axes: Mapping[int, tuple[int, ...]], old: Tensor, grouped: Mapping[str, int]
) -> int | None:
    """Groups shrink as the axis does that they divide: whole groups go."""
    if tensor not in grouped or 0 not in axes:
        return None
    return grouped[tensor] * (old.shape[0] - len(axes[0])) // old.shape[0]


def _replace_(model: nn.Module, name: str, tensor: Tensor, groups: int | None) -> None:
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(tensor, nn.Parameter):
        owner._parameters[attribute] = tensor
    else:
        owner._buffers[attribute] = tensor
    follow_weights_(owner, groups)


def _aliases(model: nn.Module) -> dict[str, list[str]]:
    """Every name of a tensor -> all its names: tied weights stay tied."""
    by_identity: defaultdict[int, list[str]] = defaultdict(list)
    state = state_of(model)
    for name, tensor in state.items():
        by_identity[id(tensor)].append(name)
    return {name: by_identity[id(tensor)] for name, tensor in state.items()}
