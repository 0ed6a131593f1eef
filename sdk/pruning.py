"""The verb `prune`: adds the stopwatch, and hands over to the stage."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sdk.runnable import why_not_here
from sdk_runtimes.errors import ArgumentError, SampleInputsError, SdkError
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.require import require_installed

if TYPE_CHECKING:
    from torch import nn

    from sdk.pruning_latency import LatencyMeter
    from sdk_pruning.prune import OpenMeter, PruneResult

Progress = Callable[[str, int, int], None]


def prune(
    model: "nn.Module",
    calibration_data: object,
    *,
    sample_inputs: object = None,
    sample_kwargs: Mapping[str, Any] | None = None,
    ratio: float | None = None,
    target_flops: float | None = None,
    target_latency_ms: float | None = None,
    target: str = "onnx",
    device: str = "auto",
    threads: int | None = None,
    measure: bool | None = None,
    selector: str = "obs",
    compensation: str = "ls",
    round_to: int | str = "auto",
    protect: Sequence[str] = (),
    attention: str = "heads",
    samples: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> "PruneResult":
    """Removes channels, neurons and attention heads, and makes up for them in closed form.

    No gradients, labels or training: what stays is fitted to what the dense network computes on the
    calibration data, layer by layer. One of `ratio`, `target_flops` and `target_latency_ms` says how much
    goes.

    Args:
        model: an `nn.Module`; it stays as it was, to the bit.
        calibration_data: unlabelled inputs, real or generated: a batch, or an iterable, generator or function
            that gives batches (tensors or arrays, tuples of positional or dicts of keyword arguments; labels
            that a loader adds are dropped). The last quarter judges and is not fitted to.
        sample_inputs: a tensor, a tuple of positional or a dict of keyword arguments of `forward`; FLOPs are
            counted and latency is measured at them. Without it they come from the model, as for `sdk.export`.
        sample_kwargs: keyword arguments beside `sample_inputs`.
        ratio: share of channels removed in every prunable group, from 0 up to, not including, 1.
        target_flops: share of the dense FLOPs that stays, above 0 up to 1; groups lose unequal shares where
            that errs less.
        target_latency_ms: milliseconds of one run at the sample inputs, on `target` and `device`.
        target: the format that will ship, and that latency is measured in: "onnx", "openvino", ….
        device: where, as `sdk.load` takes it.
        threads: of one run; None leaves the number to the engine.
        measure: True: latency is measured, or it is an error; False: it is not; None: it is where the
            target's engine is installed. A latency target always measures.
        selector: which units go: "obs", the paper's "singleton", "rowsum", "union", or the baselines
            "energy", "l2", "random".
        compensation: how the rest makes up for them: "ls", the paper's "delta", or "none".
        round_to: widths are multiples of it where that leaves a choice; "auto" for the device's vector width.
        protect: modules that stay as they are: names, or patterns such as "blocks.0.*".
        attention: what may go from attention: "heads", "dims" of every head, or "none".
        samples: most calibration samples that are used.
        seed: for selectors that draw.
        progress: called with (stage, done, total).

    Returns:
        `model`, the smaller copy with its dtypes, devices and training flags; `plan`, as JSON on demand; and
        `report`, which prints as a table. `save(folder)` keeps all three.

    Raises:
        ArgumentError: none or several goals, or one out of range; nothing to measure a latency target with.
        UnknownChoiceError: an unknown selector, compensation, target or device; lists the known ones.
        PruningError: it cannot be done: an operation that we do not understand, empty or NaN calibration
            data, everything protected, a goal that cannot be met (the best reachable is named), or a model
            that is pruned already.
        MissingExtraError, DeviceError: torch, or the target's engine, is not here, and `measure` or a latency
            target asks for it.
        SampleInputsError, WeightsError, TraceError: see the classes.
    """
    return _hand_over(
        model,
        calibration_data,
        _Where(target, device, threads),
        measure,
        in_place=False,
        sample_inputs=sample_inputs,
        sample_kwargs=sample_kwargs,
        ratio=ratio,
        target_flops=target_flops,
        target_latency_ms=target_latency_ms,
        selector=selector,
        compensation=compensation,
        round_to=round_to,
        protect=protect,
        attention=attention,
        samples=samples,
        seed=seed,
        progress=progress,
    )


def prune_(model: "nn.Module", calibration_data: object, **arguments: Any) -> "PruneResult":
    """Like `prune`, in place: the model itself is cut and gets the new weights.

    Args:
        model: changed only if all goes well.
        calibration_data: see `prune`.
        arguments: those of `prune`.

    Returns:
        The same as `prune`, where `model` is the one that was given.

    Raises:
        SdkError: what `prune` raises; the model is then as it was.
    """
    bound = inspect.signature(prune).bind(model, calibration_data, **arguments)
    bound.apply_defaults()
    given = dict(bound.arguments)
    where = _Where(given.pop("target"), given.pop("device"), given.pop("threads"))
    return _hand_over(where=where, in_place=True, **given)


@dataclass(frozen=True)
class _Where:
    """Where latency is measured."""

    target: str
    device: str
    threads: int | None


def _hand_over(
    model: "nn.Module",
    calibration_data: object,
    where: _Where,
    measure: bool | None,
    *,
    in_place: bool,
    sample_inputs: object,
    sample_kwargs: Mapping[str, Any] | None,
    target_latency_ms: float | None,
    **arguments: Any,
) -> "PruneResult":
    require_installed("torch", needed_for="sdk.prune")
    from sdk_pruning import prune as stage

    OpenOptions(threads=where.threads)  # checks it
    if arguments["samples"] < 1:
        raise ArgumentError(
            f"samples is {arguments['samples']}", why="weights are fitted to them", fix="samples=256"
        )
    notes: list[str] = []
    open_meter = _meter(where, measure, notes, wanted=target_latency_ms is not None)
    samples, kwargs = _samples(model, sample_inputs, sample_kwargs)
    result = (stage.prune_ if in_place else stage.prune)(
        model,
        calibration_data,
        sample_inputs=samples,
        sample_kwargs=kwargs,
        target_latency_ms=target_latency_ms,
        open_meter=open_meter,
        **arguments,
    )
    report = replace(result.report, warnings=(*result.report.warnings, *notes))
    return replace(result, report=report)


def _meter(where: _Where, measure: bool | None, notes: list[str], *, wanted: bool) -> "OpenMeter | None":
    """What opens a meter; None where nothing shall be measured. Notes say what could not be.

    Raises:
        ArgumentError: a latency is wanted and measuring forbidden.
        SdkError: measuring is asked for, and it is not possible here.
    """
    if measure is False and wanted:
        raise ArgumentError(
            "target_latency_ms with measure=False",
            why="a latency target is met by measuring",
            fix="leave measure out, or ask for target_flops=0.5",
        )
    obstacle = why_not_here(where.target, where.device, needed_for="measuring latency")
    needed = wanted or measure is True
    if obstacle is not None and needed:
        raise obstacle
    if measure is False:
        return None
    if obstacle is not None:
        notes.append(_not_measured(obstacle))
        return None

    @contextmanager
    def open_meter(network: "nn.Module", inputs: Any) -> "Iterator[LatencyMeter | None]":
        from sdk.pruning_latency import latency_meter

        args, kwargs = inputs
        with ExitStack() as stack:
            meter = None
            try:
                meter = stack.enter_context(
                    latency_meter(
                        network,
                        args,
                        sample_kwargs=kwargs,
                        target=where.target,
                        device=where.device,
                        threads=where.threads,
                    )
                )
            except SdkError as error:
                if needed:
                    raise
                notes.append(_not_measured(error))
            yield meter

    return open_meter


def _not_measured(error: SdkError) -> str:
    return f"latency was not measured: {error.what}" + (f" ({error.why})" if error.why else "")


def _samples(
    model: object, given: object, kwargs: Mapping[str, Any] | None
) -> tuple[object, Mapping[str, Any] | None]:
    """The caller's sample inputs, else the model's own; None where it has none, which the stage refuses.

    Raises:
        SampleInputsError: they do not fit `forward`.
    """
    from torch import nn

    from sdk_export.samples import find_samples

    if not isinstance(model, nn.Module):
        return given, kwargs  # the stage says so
    if given is not None or kwargs:
        find_samples(model, given, kwargs)
        return given, kwargs
    try:
        found = find_samples(model)
    except SampleInputsError:
        return None, None
    return found.args, found.kwargs
