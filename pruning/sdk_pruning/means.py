"""Where the mean of a layer's input may be left out of account, because something after it takes it up."""

from collections.abc import Mapping

from torch import fx, nn

from sdk_pruning.execution import operation_name
from sdk_pruning.propagation import Use
from sdk_pruning.tracing import Traced

_WITH_BIAS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def norm_after(traced: Traced, node: str) -> fx.Node | None:
    """The batch norm that alone reads a node's result."""
    readers: list[fx.Node] = list(next(one for one in traced.graph.nodes if one.name == node).users)
    if len(readers) == 1 and operation_name(readers[0]) == "batch_norm":
        return readers[0]
    return None


def takes_mean_up(traced: Traced, use: Use, owners: Mapping[str, nn.Module]) -> bool:
    """Whether a constant can be added to a layer's output.

    By its bias, a bias that it may be given, or a batch norm after it.

    Args:
        traced: the graph.
        use: of the layer.
        owners: weight name -> the module it belongs to.
    """
    if use.weight is None or use.kind == "transposed_conv":
        return False
    if use.bias is not None or norm_after(traced, use.node) is not None:
        return True
    return can_have_bias(use, owners)


def can_have_bias(use: Use, owners: Mapping[str, nn.Module]) -> bool:
    """Whether a bias can be added to the module without changing its code."""
    owner = owners.get(use.weight or "")
    if use.module != (use.weight or "").rpartition(".")[0]:
        return False  # the code reads the weight itself, and would not see a bias
    return owner is not None and type(owner) in _WITH_BIAS and owner.bias is None
