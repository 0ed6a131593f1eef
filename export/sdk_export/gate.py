"""The quality gate: runs the shipped bytes and holds them to eager fp32.

On by default, fails closed. What it draws beyond the caller's samples stays within what the samples show:
integers and booleans within their range, floats by their mean, spread and extremes, and eight times as
large. What eager PyTorch itself cannot compute, or changes with a rounding error of its inputs, says nothing
and is left out.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sdk_export.captured import Arrays, Reference, Source
from sdk_export.conditioning import steady_outputs
from sdk_export.draws import DRAWS, draw_feeds
from sdk_runtimes.errors import ArgumentError, QualityError
from sdk_runtimes.feeds import Array
from sdk_runtimes.manifest import OutputQuality, Tolerance
from sdk_runtimes.quality import Deviation, compare, rms, tolerance_for
from sdk_runtimes.specs import ProgramSpec

_FP32_FIX = "write that module with other ops, or export for another target"

Run = Callable[[Arrays], Mapping[str, Array]]
"""Arrays by input name to arrays by output name."""


@dataclass(frozen=True)
class Gate:
    """What the gate does.

    Attributes:
        enabled: off leaves every program marked unverified.
        tolerance: how far outputs may be off; by precision if None.
        draws: which inputs beyond the samples, of `DRAWS`; sizes of dynamic axes are always tried.
        seed: of the draws.
        repair: promote the module that diverges to fp32 and try again, instead of failing at once.
        metric: a quality of the caller's own, higher is better: a function of a `Run`.
        max_drop: how much `metric` may fall from eager to the shipped bytes.
    """

    enabled: bool = True
    tolerance: Tolerance | None = None
    draws: tuple[str, ...] = DRAWS
    seed: int = 0
    repair: bool = False
    metric: Callable[[Run], float] | None = None
    max_drop: float = 0.0

    def __post_init__(self) -> None:
        unknown = [draw for draw in self.draws if draw not in DRAWS]
        if unknown:
            raise ArgumentError(
                f"unknown draws {unknown}", why=f"the gate knows {list(DRAWS)}", fix="Gate(draws=…)"
            )

    def tolerance_of(self, precision: str) -> Tolerance:
        """What a program of this precision is held to."""
        return self.tolerance or tolerance_for(precision)


@dataclass(frozen=True)
class Case:
    """One draw with the truth.

    Attributes:
        draw: its label.
        feeds: arrays by input name.
        truth: eager fp32, arrays by output name; of a draw only the outputs that it says something about.
    """

    draw: str
    feeds: Arrays
    truth: Mapping[str, Array]


@dataclass(frozen=True)
class Finding:
    """One output of one draw that may not be shipped.

    Attributes:
        case: the draw.
        output: its name.
        deviation: how far off it is.
    """

    case: Case
    output: str
    deviation: Deviation


@dataclass(frozen=True)
class Measurement:
    """What the gate saw of one program.

    Attributes:
        outputs: the worst draw of every output.
        findings: what is out of tolerance, in the order of the draws; empty when the program passes.
    """

    outputs: tuple[OutputQuality, ...]
    findings: tuple[Finding, ...]


def cases_of(source: Source, gate: Gate) -> tuple[Case, ...]:
    """The sample and the draws with their truths; the sample is first.

    Raises:
        QualityError: eager PyTorch itself gives NaN on the caller's samples.
        SampleInputsError: eager PyTorch fails on the caller's samples.
    """
    sample = Case("sample", source.samples, source.reference(source.samples))
    broken = [name for name, array in sample.truth.items() if _is_nan(array)]
    if broken:
        raise QualityError(
            f"{source.name} gives NaN in {broken} in eager PyTorch, on the sample inputs",
            why="there is no truth to compare with",
            fix="check the weights and the sample inputs",
        )
    usual = _usual_rms(sample)
    drawn = []
    for label, feeds in draw_feeds(source, gate.draws, gate.seed):
        truth = _truth(source.reference, feeds)
        if truth is None:
            continue
        steady = steady_outputs(source.reference, source.samples, feeds, truth, usual, gate.seed)
        drawn += [Case(label, feeds, steady)] if steady else []
    return (sample, *drawn)


def _usual_rms(sample: Case) -> dict[str, float]:
    return {name: rms(array) for name, array in sample.truth.items() if array.dtype.kind == "f"}


def _truth(reference: Reference, feeds: Arrays) -> Mapping[str, Array] | None:
    """What eager computes, or None where it cannot (an all-zero mask, a range the code refuses)."""
    from sdk_runtimes.errors import SampleInputsError

    try:
        truth = reference(feeds)
    except SampleInputsError:
        return None
    return None if any(_is_nan(array) for array in truth.values()) else truth


def _is_nan(array: Array) -> bool:
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def measure(spec: ProgramSpec, run: Run, cases: Sequence[Case], tolerance: Tolerance) -> Measurement:
    """Runs every case through the shipped bytes.

    Args:
        spec: the program.
        run: the program as loaded from its files.
        cases: what `cases_of` gave.
        tolerance: what it is held to.
    """
    usual = _usual_rms(cases[0])
    worst: dict[str, tuple[Case, Deviation]] = {}
    findings = []
    for case in cases:
        got = run(case.feeds)
        for name in (output.name for output in spec.outputs if output.name in case.truth):
            deviation = compare(case.truth[name], got[name], usual_rms=usual.get(name, 0.0))
            if name not in worst or deviation.rel_rmse > worst[name][1].rel_rmse:
                worst[name] = (case, deviation)
            if not deviation.within(tolerance):
                findings.append(Finding(case, name, deviation))
    outputs = tuple(_record(name, case, deviation) for name, (case, deviation) in worst.items())
    return Measurement(outputs, tuple(findings))


def _record(name: str, case: Case, deviation: Deviation) -> OutputQuality:
    huge = 1e38  # JSON has no infinity; a record with it never reaches a bundle
    return OutputQuality(
        output=name,
        draw=case.draw,
        rel_rmse=min(deviation.rel_rmse, huge),
        max_abs=min(deviation.max_abs, huge),
        cosine=deviation.cosine,
        psnr_db=deviation.psnr_db,
    )


def check_metric(gate: Gate, reference: Run, run: Run, program: str) -> None:
    """Holds the shipped bytes to the caller's own metric, if there is one.

    Raises:
        QualityError: the metric falls by more than `max_drop`, or is not a number.
    """
    if gate.metric is None:
        return
    wanted, got = gate.metric(reference), gate.metric(run)
    if math.isnan(got) or wanted - got > gate.max_drop:
        raise QualityError(
            f"{program}: your metric is {got:.6g} on the shipped bytes, {wanted:.6g} in eager fp32",
            why=f"it may drop by {gate.max_drop:.6g}",
            fix="choose a higher precision, or Gate(max_drop=…)",
        )


def refusal(
    spec: ProgramSpec, measurement: Measurement, tolerance: Tolerance, culprit: str, remedy: str
) -> QualityError:
    """The error for a program that is out of tolerance.

    Args:
        spec: the program.
        measurement: with findings.
        tolerance: what it was held to.
        culprit: the sentence about the first module that diverges.
        remedy: what keeps more precision on this target; empty in fp32, where nothing does.
    """
    first = measurement.findings[0]
    seen = first.deviation
    figure = f"rel. RMSE {seen.rel_rmse:.3g}" if seen.finite else "NaN, Inf or another shape"
    limit = f"rel. RMSE ≤ {tolerance.rel_rmse:g}"
    if tolerance.min_psnr_db is not None:
        limit += f", PSNR ≥ {tolerance.min_psnr_db:g} dB"
    return QualityError(
        f"{spec.id} does not compute what the model computes: output {first.output!r} on draw "
        f"{first.case.draw!r} has {figure} (allowed: {limit})",
        why=culprit,
        fix=f"{remedy or _FP32_FIX}; Gate(tolerance=…) if you accept it",
    )
