"""Holds surgery to its word: the cut network computes what the masked one computes."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sdk_pruning.calls import Call
from sdk_pruning.changes import Change, apply_changes_
from sdk_pruning.groups import Structure
from sdk_pruning.masking import masked_outputs
from sdk_pruning.propagation import state_of
from sdk_pruning.removal import Removal, Removed, removal_of
from sdk_pruning.surgery import cut_
from sdk_pruning.tracing import Traced
from sdk_runtimes.errors import PruningError

TOLERANCE = 1e-4
"""Largest difference of any output, relative to the largest output: rounding of float32 stays far below."""


def outputs_of(model: nn.Module, call: Call) -> list[Any]:
    """What a model returns, flattened; in evaluation mode it must be already."""
    with torch.no_grad():
        return pytree.tree_leaves(model(*call.args, **call.kwargs))


def difference(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Largest absolute difference of the outputs that are tensors of numbers, relative to the largest size.

    Infinite where shapes differ or something is not finite.
    """
    worst = 0.0
    tensors = [[item for item in side if isinstance(item, Tensor)] for side in (ours, theirs)]
    if len(tensors[0]) != len(tensors[1]):
        return float("inf")
    for one, other in zip(*tensors, strict=True):
        if one.shape != other.shape:
            return float("inf")
        if one.numel():
            mine, reference = one.detach().double(), other.detach().double()
            gap = (mine - reference).abs().max() / reference.abs().max().clamp_min(1e-12)
            worst = max(worst, float(gap)) if bool(gap.isfinite()) else float("inf")
    return worst


def cut_copy(
    model: nn.Module, structure: Structure, removal: Removal, changes: Sequence[Change]
) -> nn.Module:
    """A copy of the dense model without the removed slices."""
    smaller = copy.deepcopy(model)
    cut_(smaller, removal, structure.findings.grouped)
    apply_changes_(smaller, changes)
    return smaller


def refuse_difference(
    cut: nn.Module,
    traced: Traced,
    structure: Structure,
    model: nn.Module,
    removed: Removed,
    calls: Sequence[Call],
) -> float:
    """Compares the cut network with the masked dense one.

    Returns:
        The largest difference, relative to the largest output.

    Raises:
        PruningError: they differ by more than `TOLERANCE`, or the cut one does not run.
    """
    removal = removal_of(structure, removed)
    worst = 0.0
    for call in calls:
        expected = masked_outputs(traced, structure, state_of(model), removal, call)
        found, reason = attempt(cut, call)
        gap = difference(found, expected) if found is not None else float("inf")
        if gap > TOLERANCE:
            raise PruningError(
                f"the pruned network differs from the masked one by {gap:.2g} of its largest output"
                if found is not None
                else f"the pruned network does not run: {reason}",
                why="a size in the model's code does not follow its weights",
                fix="sdk.prune(…, protect=(<the module>,)); report.groups lists what was cut",
            )
        worst = max(worst, gap)
    return worst


def attempt(model: nn.Module, call: Call) -> tuple[list[Any] | None, str]:
    """The tensors that a model returns, or None and what it raised."""
    try:
        return [item for item in outputs_of(model, call) if isinstance(item, Tensor)], ""
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything; the message carries it
        return None, f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
