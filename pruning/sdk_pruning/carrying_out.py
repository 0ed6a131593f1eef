"""Carries a choice of widths out: which units, new weights, the cut model, its plan and its figures."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sdk_pruning.adapting import changes_of
from sdk_pruning.checking import cut_copy, outputs_of, refuse_difference
from sdk_pruning.compensation import Compensation, compensate
from sdk_pruning.components import Consumer, Curve
from sdk_pruning.groups import Group
from sdk_pruning.layers import Widths
from sdk_pruning.plan import MARK, GroupPlan, Plan, add_bias_
from sdk_pruning.priors import weight_of
from sdk_pruning.propagation import state_of
from sdk_pruning.removal import cut, removal_of
from sdk_pruning.report import agreement, relative_error
from sdk_pruning.rescaling import rescaled
from sdk_pruning.selectors.table import find_selector
from sdk_pruning.statistics import Fit, consumers_of, dense_moments
from sdk_pruning.study import Study

SEQUENTIAL = "obs"
"""The selector that looks at the features of the pruned network as it grows; the others are the paper's or
baselines, and look at the dense one's."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """A pruned network and how well it does.

    Attributes:
        model: cut and compensated, float32 on the CPU, in evaluation mode.
        plan: what was done.
        relative_error: ‖y − ŷ‖ / ‖y‖ on the calibration data that judge.
        agreement: of top-1 classes there; None where there are none.
        masked_difference: between cut and masked network before compensation.
        compensation: details of the solves.
    """

    model: nn.Module
    plan: Plan
    relative_error: float
    agreement: float | None
    masked_difference: float
    compensation: Compensation


@dataclass(frozen=True)
class Method:
    """How units are chosen and made up for.

    Attributes:
        selector: a key of `SELECTORS`.
        compensation: a key of `COMPENSATORS`.
        seed: for selectors that draw.
        recipe: further facts for the plan.
    """

    selector: str
    compensation: str
    seed: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DenseCurves:
    """What the dense network's features say.

    Attributes:
        fits: number of use -> its moments.
        curves: group -> order and errors.
    """

    fits: Mapping[int, Fit]
    curves: Mapping[str, Curve]


def dense_curves(about: Study, selector: str, seed: int) -> DenseCurves:
    """Orders the units of every group by the features of the dense network."""
    fits = dense_moments(
        about.traced, about.structure, about.state, about.calibration.fit, weight_of(about.mismatch)
    )
    rank = find_selector(selector)
    curves = {
        group.name: rank(consumers_of(group, about.traced, about.structure, about.state, fits), None, seed)
        for group in about.structure.groups
    }
    return DenseCurves(fits, curves)


def carry_out(
    about: Study,
    widths: Widths,
    method: Method,
    *,
    curves: Mapping[str, Curve] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Prunes a copy of the studied model to given widths.

    Args:
        about: the dense network.
        widths: group -> units kept.
        method: selector and compensation.
        curves: of the dense network, where there are any already; selectors other than "obs" need them and
            make them otherwise.
        progress: told (stage, done, total).

    Raises:
        PruningError: the cut network does not compute what the masked one does.
    """
    errors: dict[str, float] = {}
    removed: dict[str, tuple[int, ...]] = {}
    if method.selector != SEQUENTIAL:
        for name, curve in (curves or dense_curves(about, method.selector, method.seed).curves).items():
            rounds = _rounds(curve, widths[name])
            removed[name], errors[name] = curve.removed(rounds), curve.error[rounds]
    rank = find_selector(method.selector)

    def choose(group: Group, consumers: list[Consumer]) -> tuple[int, ...]:
        curve = rank(consumers, None, method.seed)
        rounds = _rounds(curve, widths[group.name])
        errors[group.name] = curve.error[rounds]
        return curve.removed(rounds)

    state = about.state
    whole = {group.name: () for group in about.structure.groups if widths[group.name] == len(group.units)}
    errors |= dict.fromkeys(whole, 0.0)
    found = compensate(
        about.traced,
        about.structure,
        state,
        removed | whole,
        about.calibration.fit,
        choose=choose,
        compensation=method.compensation,
        untouched=about.untouched,
        prior_weight=weight_of(about.mismatch),
        progress=None if progress is None else (lambda done, total: progress("compensating", done, total)),
    )
    return _finished(about, found, errors, method)


def _rounds(curve: Curve, kept: int) -> int:
    return (len(curve.order) - kept) // curve.round_units


def _finished(about: Study, found: Compensation, errors: Mapping[str, float], method: Method) -> Outcome:
    plan = _plan(about, found, errors, method)
    model = cut_copy(about.model, about.structure, removal_of(about.structure, found.removed), plan.changes)
    calls = [about.call, about.calibration.fit[0]]
    gap = refuse_difference(model, about.traced, about.structure, about.model, found.removed, calls)
    _load_(model, found, plan)
    dense = [outputs_of(about.model, call) for call in about.calibration.judge]
    pruned = [outputs_of(model, call) for call in about.calibration.judge]
    setattr(model, MARK, plan)
    return Outcome(model, plan, relative_error(dense, pruned), agreement(dense, pruned), gap, found)


def _plan(about: Study, found: Compensation, errors: Mapping[str, float], method: Method) -> Plan:
    removal = removal_of(about.structure, found.removed)
    groups = {}
    for group in about.structure.groups:
        gone = set(found.removed[group.name])
        kept = tuple(unit for unit in range(len(group.units)) if unit not in gone)
        groups[group.name] = GroupPlan(group.role, len(group.units), kept, errors.get(group.name, 0.0))
    state = about.state
    grouped = {
        name: count for name, count in about.structure.findings.grouped.items() if name in removal.slices
    }
    return Plan(
        groups=groups,
        slices=removal.slices,
        shapes={tensor: tuple(state[tensor].shape) for tensor in removal.slices},
        grouped=grouped,
        changes=tuple(changes_of(about.model, about.structure, found.removed, about.attributes)),
        added_biases=tuple(sorted(weight.rpartition(".")[0] for weight in found.added_biases)),
        recipe={
            "selector": method.selector,
            "compensation": method.compensation,
            "seed": method.seed,
            "samples": about.calibration.samples,
            **method.recipe,
        },
    )


def _load_(model: nn.Module, found: Compensation, plan: Plan) -> None:
    """Puts the new values into the cut model, in place."""
    state = state_of(model)
    with torch.no_grad():
        for name in found.changed:
            smaller = cut(found.state[name], plan.slices.get(name, {}))
            state[name].copy_(rescaled(name, smaller, plan.changes))
        for weight, bias in found.added_biases.items():
            layer = weight.rpartition(".")[0]
            add_bias_(model, layer)
            gone = plan.slices.get(weight, {}).get(0, ())
            name = f"{layer}.bias"
            state_of(model)[name].copy_(rescaled(name, cut(bias, {0: gone}), plan.changes))


def as_it_came(outcome: nn.Module, original: nn.Module) -> nn.Module:
    """The pruned model with the dtypes, devices and training flags of the dense one."""
    model = copy.deepcopy(outcome)
    theirs = state_of(original)
    for name, tensor in state_of(model).items():
        like = theirs.get(name)
        if like is not None and (like.dtype != tensor.dtype or like.device != tensor.device):
            tensor.data = tensor.data.to(device=like.device, dtype=like.dtype)
    flags = {name: module.training for name, module in original.named_modules()}
    for name, module in model.named_modules():
        module.training = flags.get(name, original.training)
    return model
