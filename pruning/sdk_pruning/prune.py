"""Prunes a network: how much goes where, then `carry_out`.

study -> widths (a ratio, FLOPs or a latency) -> units -> new weights -> cut model -> report
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sdk_pruning.allocating import Decided, decide
from sdk_pruning.carrying_out import Method, Outcome, as_it_came
from sdk_pruning.compensators.table import find_compensator
from sdk_pruning.goals import goal_of
from sdk_pruning.layers import total_flops
from sdk_pruning.metering import Meter
from sdk_pruning.plan import MARK, Plan, apply_plan_, load_plan
from sdk_pruning.priors import NEGLIGIBLE, weight_of
from sdk_pruning.report import GroupReport, PruneReport
from sdk_pruning.saving import load_weights_, save_weights
from sdk_pruning.selectors.table import find_selector
from sdk_pruning.study import Study, study
from sdk_runtimes.errors import PruningError, SdkError

SAMPLES = 256

Progress = Callable[[str, int, int], None]
OpenMeter = Callable[[nn.Module, Any], AbstractContextManager[Meter | None]]
"""(dense network, sample inputs) -> what times networks on the target; None where it cannot and need not."""


@dataclass(frozen=True)
class PruneResult:
    """A pruned network.

    Attributes:
        model: smaller, of the same class, with compensated weights.
        plan: what was cut.
        report: what that did.
    """

    model: nn.Module
    plan: Plan
    report: PruneReport

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `plan.json`, `weights.safetensors` and `report.txt`; `load_pruned` reads them back."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        self.plan.save(place / "plan.json")
        save_weights(self.model, place / "weights.safetensors")
        (place / "report.txt").write_text(str(self.report) + "\n", encoding="utf-8")


def load_pruned(model: nn.Module, folder: str | os.PathLike[str]) -> nn.Module:
    """A dense model, cut and with the weights of a pruned one, in place; returned for convenience.

    Args:
        model: dense, of the architecture that was pruned; its weights do not matter.
        folder: that `PruneResult.save` wrote.

    Raises:
        PruningError: the plan does not fit the model, or the files are missing.
    """
    place = Path(folder)
    apply_plan_(model, load_plan(place / "plan.json"))
    load_weights_(model, place / "weights.safetensors")
    return model


def prune(
    model: nn.Module,
    calibration_data: object,
    *,
    sample_inputs: object = None,
    sample_kwargs: Mapping[str, Any] | None = None,
    ratio: float | None = None,
    target_flops: float | None = None,
    target_latency_ms: float | None = None,
    selector: str = "obs",
    compensation: str = "ls",
    round_to: int | str = "auto",
    protect: Sequence[str] = (),
    attention: str = "heads",
    samples: int = SAMPLES,
    seed: int = 0,
    open_meter: OpenMeter | None = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Removes channels, neurons and attention heads, and makes up for them in closed form.

    No gradients, labels or training. See `sdk.prune`, which adds the meter.

    Args:
        model: left as it is.
        calibration_data: see `read_calibration`.
        sample_inputs: a tensor, a tuple of positional or a dict of keyword arguments; FLOPs are counted and
            latency is measured at them.
        sample_kwargs: keyword arguments beside them.
        ratio: share of channels removed in every prunable group.
        target_flops: share of the dense FLOPs that stays.
        target_latency_ms: on the meter's device.
        selector: a key of `SELECTORS`.
        compensation: a key of `COMPENSATORS`.
        round_to: widths are multiples of it where that leaves a choice; "auto" for the device's vector width.
        protect: modules that stay as they are.
        attention: "heads", "dims" or "none": what may go from attention.
        samples: most calibration samples that are used.
        seed: for selectors that draw.
        open_meter: times networks; needed for a latency, else optional.
        progress: told (stage, done, total).

    Raises:
        ArgumentError, UnknownChoiceError: an argument that cannot be right.
        PruningError: it cannot be done as asked.
        SampleInputsError, TraceError, WeightsError: see the classes.
    """
    start = time.monotonic()
    goal = goal_of(ratio, target_flops, target_latency_ms)
    find_selector(selector), find_compensator(compensation)
    tell = progress or _silent
    tell("tracing", 0, 1)
    about = study(
        model,
        calibration_data,
        sample_inputs,
        sample_kwargs,
        protect=protect,
        attention=attention,
        samples=samples,
    )
    method = Method(
        selector, compensation, seed, {"goal": goal.text, "round_to": round_to, "attention": attention}
    )
    if open_meter is None:
        if goal.latency_ms is not None:
            raise PruningError(
                "a latency target without a meter", why="nothing here measures latency", fix="sdk.prune(…)"
            )
        decided = decide(about, goal, method, round_to, None, tell)
        return _result(model, about, decided, None, start)
    with open_meter(about.model, (about.call.args, dict(about.call.kwargs))) as meter:
        decided = decide(about, goal, method, round_to, meter, tell)
        return _result(model, about, decided, meter, start)


def prune_(model: nn.Module, calibration_data: object, **arguments: Any) -> PruneResult:
    """Like `prune`, in place: the model itself is cut and gets the new weights.

    Args:
        model: changed only if all went well.
        calibration_data: see `prune`.
        arguments: of `prune`.
    """
    result = prune(model, calibration_data, **arguments)
    delattr(result.model, MARK)
    apply_plan_(model, result.plan)
    model.load_state_dict(result.model.state_dict())
    return PruneResult(model, result.plan, result.report)


def _silent(_stage: str, _done: int, _total: int) -> None:
    """No progress wanted."""


def _result(
    original: nn.Module, about: Study, decided: Decided, meter: Meter | None, start: float
) -> PruneResult:
    outcome = decided.outcome
    latency, trouble = _timed(outcome, meter)
    widths = {name: len(group.kept) for name, group in outcome.plan.groups.items()}
    report = PruneReport(
        flops=(total_flops(about.layers, about.full), total_flops(about.layers, widths)),
        parameters=(_count(about.model), _count(outcome.model)),
        relative_error=outcome.relative_error,
        agreement=outcome.agreement,
        held_out=about.calibration.held_out,
        samples=about.calibration.samples,
        masked_difference=outcome.masked_difference,
        groups=tuple(
            GroupReport(name, group.role, group.units, len(group.kept), group.error)
            for name, group in outcome.plan.groups.items()
        ),
        kept=dict(about.structure.kept),
        allocation=decided.reason,
        latency_ms=latency,
        target=meter.label if meter is not None and latency is not None else "",
        warnings=(*_warnings(about, outcome), *trouble),
        seconds=time.monotonic() - start,
    )
    return PruneResult(as_it_came(outcome.model, original), outcome.plan, report)


def _timed(outcome: Outcome, meter: Meter | None) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Dense and pruned milliseconds, and what went wrong: what cannot be timed is pruned all the same."""
    if meter is None:
        return None, ()
    try:
        found = meter.networks({"pruned": outcome.model})["pruned"]
    except SdkError as error:
        return None, (f"latency was not measured: {error.what}",)
    return (found.ms * found.ratio, found.ms), ()


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _warnings(about: Study, outcome: Outcome) -> tuple[str, ...]:
    warnings = []
    few = outcome.compensation.rows
    if few:
        worst = max(few, key=lambda name: few[name][1] / few[name][0])
        rows, columns = few[worst]
        warnings.append(
            f"{len(few)} layers have fewer calibration rows than columns ({worst}: {rows} for {columns}); a "
            "ridge keeps their weights near the old ones. More calibration data would help"
        )
    if weight_of(about.mismatch) >= NEGLIGIBLE:
        warnings.append(
            "the calibration data are not like the training data (mismatch at the batch norms "
            f"{about.mismatch:.2g}; training images give about 0.001): errors on other data will be larger "
            "than those above. More varied calibration data would help most"
        )
    if not about.calibration.held_out:
        warnings.append("a single calibration sample: errors are measured on what the weights were fitted to")
    return tuple(warnings)
