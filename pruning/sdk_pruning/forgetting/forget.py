"""Makes a trained classifier stop naming some classes, and reports honestly what became of them."""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from sdk_pruning.forgetting.assessment import assess
from sdk_pruning.forgetting.editable_layers import EditableLayer, LayerChoice, choose_layers, trace_layers
from sdk_pruning.forgetting.labelled import Data, Halves, Labelled, check_apart, halves, read
from sdk_pruning.forgetting.measures import check_labels, logits_of
from sdk_pruning.forgetting.methods import find_method
from sdk_pruning.forgetting.moments import device_of
from sdk_pruning.forgetting.report import ForgetReport
from sdk_pruning.forgetting.stages import Progress, silent
from sdk_runtimes.errors import ArgumentError, PruningError, SdkError, WeightsError


@dataclass(frozen=True)
class ForgetResult:
    """What `forget` gives back.

    Attributes:
        model: a copy of the network, edited; in the mode (training or eval) of the one that came.
        report: what it still knows.
    """

    model: nn.Module
    report: ForgetReport


def forget(
    model: nn.Module,
    forget_data: Data,
    retain_data: Data,
    *,
    method: str = "ridge",
    strength: float | None = None,
    layers: LayerChoice = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ForgetResult:
    """Suppresses classes in a copy of a classifier: forward passes and closed forms, no training.

    Half of every class is held out, for the report alone. The methods are described in `ridge.py` and
    `fidelity_suppression.py`. Neither takes away what the network knows; the report says how easily it comes
    back.

    Args:
        model: gives logits (B, classes); its own weights stay as they are.
        forget_data: batches of (inputs, labels), labels int64 (B,), of the classes to suppress: a list, a
            loader, a generator (each is consumed once and kept), or one such pair.
        retain_data: the same of the other classes.
        method: "ridge" or "fidelity" (ModHiFi-U).
        strength: ridge: λ ≥ 0, 1 by default. fidelity: the share of kernels in (0, 1]; by default the best of
            a list of shares on the half that is fitted to.
        layers: module names, or how many of the last layers; by default the last 2 (ridge), or the last 12
            before the classifier (fidelity).
        seed: of the split into halves.
        progress: called with (stage, done, total).

    Returns:
        The edited copy and the report.

    Raises:
        UnknownChoiceError: an unknown method or layer; lists the known ones.
        ArgumentError: data that is empty, broken or overlapping; a strength out of range.
        WeightsError: the network holds NaN or Inf.
        PruningError: a network that cannot be edited so: shared layers, no logits, no copy.
    """
    chosen_method = find_method(method)
    chosen_method.check_strength(strength)
    unwanted, kept = _both_halves(forget_data, retain_data, seed)
    edited = _copied(model)
    ran = _layers_that_run(edited, unwanted.fit, kept.fit)
    chosen = choose_layers(edited, ran, layers, chosen_method.default(ran))
    tell = progress or silent
    done = chosen_method.apply(edited, chosen, unwanted.fit, kept.fit, strength, tell)
    tell("measuring", 0, 1)
    measured = assess(model, edited, ran[-1].name, unwanted, kept)
    tell("measuring", 1, 1)
    report = ForgetReport(
        method=method,
        strength=done.strength,
        edit=done.edit,
        layers=tuple(layer.name for layer in chosen),
        classes=unwanted.fit.classes,
        forget_samples=len(unwanted.held_out),
        retain_samples=len(kept.held_out),
        measured=measured,
        verdict=measured.verdict,
    )
    return ForgetResult(edited, report)


def forget_(
    model: nn.Module,
    forget_data: Data,
    retain_data: Data,
    *,
    method: str = "ridge",
    strength: float | None = None,
    layers: LayerChoice = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ForgetReport:
    """`forget` in place: the network itself is edited, or left as it was where something is refused.

    Arguments and errors are those of `forget`.

    Returns:
        The report.
    """
    result = forget(
        model,
        forget_data,
        retain_data,
        method=method,
        strength=strength,
        layers=layers,
        seed=seed,
        progress=progress,
    )
    model.load_state_dict(result.model.state_dict())
    return result.report


def _both_halves(forget_data: Data, retain_data: Data, seed: int) -> tuple[Halves, Halves]:
    if forget_data is retain_data:
        raise ArgumentError(
            "forget_data and retain_data are the same object",
            why="what shall be forgotten cannot be retained",
            fix="divide it with sdk_pruning.forgetting.labelled.split_by_class",
        )
    unwanted, kept = read(forget_data, "forget_data"), read(retain_data, "retain_data")
    check_apart(unwanted, kept)
    return halves(unwanted, "forget_data", seed), halves(kept, "retain_data", seed)


def _layers_that_run(model: nn.Module, forget: Labelled, retain: Labelled) -> tuple[EditableLayer, ...]:
    """Tries the network on two samples: does it read them, does it know all classes, which layers run?

    Raises:
        ArgumentError: it cannot read the samples, or has fewer classes.
        PruningError: no logits, or no layer to edit.
    """
    few = retain.inputs[:2]
    try:
        logits = logits_of(model, few)
    except SdkError:
        raise
    except Exception as error:  # whatever a forward raises
        raise ArgumentError(
            f"{type(model).__name__} cannot run on inputs {tuple(few.shape)} {few.dtype}",
            why=f"{type(error).__name__}: {error}",
            fix="prepare the samples as for training, with the batch first",
        ) from error
    check_labels(logits, forget, "forget_data")
    check_labels(logits, retain, "retain_data")
    return trace_layers(model, few.to(device_of(model)))


def _copied(model: object) -> nn.Module:
    """A copy with weights of its own.

    Raises:
        ArgumentError: no module, or one without parameters.
        WeightsError: NaN or Inf.
        PruningError: it cannot be copied.
    """
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        raise ArgumentError(
            f"the model is a {type(model).__name__} without parameters",
            why="layers of an nn.Module are edited",
            fix="pass the eager nn.Module",
        )
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise WeightsError(
            f"{len(broken)} tensors hold NaN or Inf: {broken[:5]}",
            why="every moment would too",
            fix="load weights that are finite",
        )
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever a module's own __deepcopy__ or attributes raise
        raise PruningError(
            f"{type(model).__name__} cannot be copied: {type(error).__name__}: {error}",
            why="the network that came is left as it was, the edit goes into a copy",
            fix="keep no tensors with a history, hooks on locks or open files as attributes",
        ) from error
