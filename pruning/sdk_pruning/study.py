"""Everything that is found out about a dense network before anything is decided."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdk_pruning.adapting import Adapter, adapted
from sdk_pruning.calibration import Calibration, read_calibration
from sdk_pruning.calls import Call, sample_call
from sdk_pruning.grouping import find_groups
from sdk_pruning.groups import Structure
from sdk_pruning.layers import Layer
from sdk_pruning.network_layers import network_layers
from sdk_pruning.plan import refuse_pruned
from sdk_pruning.priors import mismatch
from sdk_pruning.propagation import propagate, state_of
from sdk_pruning.protecting import protect_, protected_tensors
from sdk_pruning.rules.table import RULES
from sdk_pruning.tracing import Traced, trace
from sdk_runtimes.errors import ArgumentError, PruningError, WeightsError


@dataclass(frozen=True)
class Study:
    """A dense network, understood.

    Attributes:
        model: a copy in float32, on the CPU, in evaluation mode.
        traced: its graph.
        structure: its groups.
        attributes: group -> what follows when its units go.
        layers: what costs something.
        call: sample inputs.
        calibration: inputs.
        untouched: tensors whose values stay.
        mismatch: how far the calibration data are from the training data, as batch norms see it.
    """

    model: nn.Module
    traced: Traced
    structure: Structure
    attributes: Mapping[str, Adapter]
    layers: tuple[Layer, ...]
    call: Call
    calibration: Calibration
    untouched: frozenset[str]
    mismatch: float

    @property
    def state(self) -> dict[str, Tensor]:
        """Dense parameters and buffers by name."""
        return {name: tensor.detach() for name, tensor in state_of(self.model).items()}

    @property
    def full(self) -> dict[str, int]:
        """Group -> all its units."""
        return {group.name: len(group.units) for group in self.structure.groups}


def study(
    model: nn.Module,
    calibration_data: object,
    sample_inputs: object,
    sample_kwargs: Mapping[str, object] | None,
    *,
    protect: Sequence[str],
    attention: str,
    samples: int,
) -> Study:
    """Traces a model and finds what can go from it.

    Raises:
        ArgumentError: not a module, or a pattern of `protect` that fits nothing.
        PruningError: pruned already, nothing to prune, an unknown operation, or unfit calibration data.
        SampleInputsError, TraceError, WeightsError: see the classes.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            f"model is a {type(model).__name__}", why="an nn.Module can be pruned", fix="sdk.prune(module, …)"
        )
    refuse_pruned(model)
    _refuse_bad_weights(model)
    call = sample_call(sample_inputs, sample_kwargs).mapped(_plain)
    work = copy.deepcopy(model).eval().cpu()
    work = (
        work.float() if any(p.dtype in (torch.float16, torch.bfloat16) for p in work.parameters()) else work
    )
    traced = trace(work, call)
    calibration = read_calibration(calibration_data, call, limit=samples, any_batch=traced.any_batch)
    findings = propagate(traced, work, call, RULES)
    patterns = (protect,) if isinstance(protect, str) else tuple(protect)
    protect_(findings, patterns)
    structure, attributes = adapted(work, traced, find_groups(findings, work, attention), call)
    if not structure.groups:
        raise PruningError(
            f"nothing in {type(model).__name__} can be pruned",
            why="; ".join(f"{name}: {why}" for name, why in list(structure.kept.items())[:8])
            or "it has no layer whose outputs other layers read",
            fix="protect less" if patterns else "prune a model with hidden layers",
        )
    return Study(
        model=work,
        traced=traced,
        structure=structure,
        attributes=attributes,
        layers=network_layers(traced, structure),
        call=call,
        calibration=calibration,
        untouched=protected_tensors(findings, patterns),
        mismatch=mismatch(traced, state_of(work), calibration.fit),
    )


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.is_floating_point() else tensor


def _refuse_bad_weights(model: nn.Module) -> None:
    bad = [
        name
        for name, tensor in state_of(model).items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise WeightsError(
            f"NaN or infinity in {', '.join(bad[:5])}" + (" …" if len(bad) > 5 else ""),
            why="every moment would be NaN",
            fix="load a sound checkpoint",
        )
