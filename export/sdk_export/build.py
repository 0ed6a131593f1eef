"""From a captured network to a bundle in its place: write, prove, seal. All of it or nothing."""

import logging
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdk_export.captured import Captured, Source
from sdk_export.cost import Cost, cost_of
from sdk_export.culprit import Culprit, find_culprit
from sdk_export.evaluations import Evaluation
from sdk_export.gate import Case, Finding, Gate, Measurement, cases_of, check_metric, measure, refusal
from sdk_export.onnx_lowering import forget_translation
from sdk_export.targets.table import Target, find_target
from sdk_export.versions import installed_versions
from sdk_runtimes.bundle import Bundle
from sdk_runtimes.bundle_writer import seal_bundle, stage_bundle
from sdk_runtimes.errors import ArgumentError, LoweringError
from sdk_runtimes.goldens import write_goldens
from sdk_runtimes.manifest import SCHEMA_VERSION, Golden, Manifest, Provenance, QualityRecord
from sdk_runtimes.require import require_installed
from sdk_runtimes.specs import ProgramSpec

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""(stage, done, total)."""

_GOLDEN_CASES = 2  # the sample and one draw: replayed at every first load, so few
_MAX_REPAIRS = 16
_WHOLE = "(the whole program)"
_LEGAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Order:
    """What is to be built.

    Attributes:
        out: where the bundle will be.
        targets: names of targets.
        precision: of every program.
        gate: the quality check.
        overwrite: replace a bundle that is there.
        model: what was exported, for the provenance.
        licence: of the weights, as the caller states it.
        recipe: the arguments of the export, for the provenance.
    """

    out: Path
    targets: Sequence[str]
    precision: str
    gate: Gate
    overwrite: bool
    model: str
    licence: str | None = None
    recipe: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Proven:
    spec: ProgramSpec
    record: QualityRecord


def build_bundle(source: Source, order: Order, progress: Progress) -> Bundle:
    """Writes every program, holds each to the truth, and puts the bundle in its place.

    Raises:
        ArgumentError: no target, or a name that cannot be a file name.
        UnknownChoiceError: a target or precision that does not exist.
        LoweringError: an op that a target cannot express.
        QualityError: the gate refuses; nothing is left at `out`.
        OutputExistsError, WriteError: see `stage_bundle`.
    """
    targets = _targets(source, order)
    stages = len(targets) + 2
    try:
        with stage_bundle(order.out, overwrite=order.overwrite) as stage:
            progress("eager reference", 0, stages)
            cases = cases_of(source, order.gate) if order.gate.enabled else ()
            cost = cost_of(source) if isinstance(source, Captured) else Cost(0, 0)
            proven = []
            for done, target in enumerate(targets, 1):
                progress(target.name, done, stages)
                proven.append(_prove(source, target, order, cases, cost, stage))
            progress("sealing", stages - 1, stages)
            goldens = _write_goldens(source, cases, stage)
            sealed = seal_bundle(stage, _manifest(source, order, proven, goldens))
    finally:
        forget_translation()
    progress("done", stages, stages)
    return sealed.at(order.out.absolute())


def _targets(source: Source, order: Order) -> list[Target]:
    if not _LEGAL_NAME.fullmatch(source.name):
        raise ArgumentError(
            f"the name {source.name!r} cannot be a file name everywhere",
            why="it may hold letters, digits, '_', '.' and '-', at most 100 of them",
            fix="sdk.export(model, name='net', …)",
        )
    if not order.targets:
        raise ArgumentError("there is no target", fix='sdk.export(model, target="onnx")')
    targets = [find_target(name, order.precision) for name in dict.fromkeys(order.targets)]
    for target in targets:
        require_installed(target.needs, needed_for=f"target {target.name!r}")
        if not isinstance(source, Captured) and not target.takes_onnx:
            raise LoweringError(
                f"target {target.name!r} cannot be made from an ONNX file",
                why="its converter reads PyTorch programs only",
                fix="export from the nn.Module or a .pt2 file",
            )
    return targets


def _prove(
    source: Source, target: Target, order: Order, cases: Sequence[Case], cost: Cost, stage: Path
) -> _Proven:
    """Writes one program and gates it, promoting modules to fp32 as far as `repair` allows."""
    gate, precision = order.gate, order.precision
    repaired: list[str] = []
    while True:
        spec = _write(source, target, precision, cost, stage)
        tolerance = gate.tolerance_of(precision)
        if not gate.enabled:
            return _Proven(
                spec, QualityRecord(spec.id, "unverified", "", "the gate was switched off", tolerance)
            )
        with target.evaluate(spec, stage) as evaluation:
            measured = measure(spec, evaluation.run, cases, tolerance)
            if not measured.findings and evaluation.strict:
                measured = measure(spec, evaluation.strict, cases, tolerance)
            if not measured.findings:
                check_metric(gate, source.reference, evaluation.run, spec.id)
                return _Proven(spec, _record(spec, target, evaluation, measured, gate, repaired))
            culprit = _culprit(source, target, precision, evaluation, measured.findings[0], gate)
        source, precision, promoted = _promote(source, target, precision, culprit, gate, repaired)
        if not promoted:
            raise refusal(spec, measured, tolerance, _sentence(culprit, repaired), _remedy(target, precision))
        _log.warning("%s: %s; %s is computed in fp32 and measured again", spec.id, culprit, promoted)
        repaired.append(promoted)
        _delete(spec, stage)


def _culprit(
    source: Source, target: Target, precision: str, evaluation: Evaluation, finding: Finding, gate: Gate
) -> Culprit | None:
    if not isinstance(source, Captured):
        return None  # a foreign file has no modules
    values = target.module_values(source, precision)
    return find_culprit(source, values, evaluation.tap, finding.case.feeds, gate.tolerance_of(precision))


def _promote(
    source: Source,
    target: Target,
    precision: str,
    culprit: Culprit | None,
    gate: Gate,
    repaired: Sequence[str],
) -> tuple[Source, str, str]:
    """The source and precision to try next, and what was promoted ("" when nothing is left to promote)."""
    if not gate.repair or precision == "fp32" or len(repaired) >= _MAX_REPAIRS:
        return source, precision, ""
    if culprit is None or not target.keeps_modules or culprit.module in repaired:
        return source, "fp32", _WHOLE
    return replace(source, keep_fp32=source.keep_fp32 | {culprit.module}), precision, culprit.module


def _remedy(target: Target, precision: str) -> str:
    if precision == "fp32":
        return ""
    if target.keeps_modules:
        return "Gate(repair=True) keeps that module in fp32, precision='fp32' the whole program"
    return f"precision='fp32' or Gate(repair=True), which on {target.name} keeps the whole program in fp32"


def _sentence(culprit: Culprit | None, repaired: Sequence[str]) -> str:
    found = str(culprit) if culprit else "no single module stands out among those the file still names"
    return f"{found}; already promoted to fp32: {', '.join(repaired)}" if repaired else found


def _record(
    spec: ProgramSpec,
    target: Target,
    evaluation: Evaluation,
    measured: Measurement,
    gate: Gate,
    repaired: Sequence[str],
) -> QualityRecord:
    return QualityRecord(
        program=spec.id,
        verdict="unverified" if target.unverified else "passed",
        evaluator=evaluation.label,
        reason=target.unverified,
        tolerance=gate.tolerance_of(spec.precision),
        outputs=measured.outputs,
        repaired=tuple(repaired),
    )


def _write(source: Source, target: Target, precision: str, cost: Cost, stage: Path) -> ProgramSpec:
    files = target.write(source, precision, stage / "programs")
    return ProgramSpec(
        name=source.name,
        target=target.name,
        precision=precision,
        inputs=source.inputs,
        outputs=source.outputs,
        files=tuple(f"programs/{file}" for file in files),
        symbols=source.symbols,
        weights_bytes=sum((stage / "programs" / file).stat().st_size for file in files),
        activations_bytes=cost.activations_bytes,
        flops=cost.flops,
        options=dict(target.options(source)),
    )


def _delete(spec: ProgramSpec, stage: Path) -> None:
    for top in {Path(file).parts[1] for file in spec.files}:
        path = stage / "programs" / top
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_goldens(source: Source, cases: Sequence[Case], stage: Path) -> tuple[Golden, ...]:
    whole = [case for case in cases if len(case.truth) == len(source.outputs)]
    chosen = whole[:_GOLDEN_CASES]
    if not chosen:
        return ()
    file = f"golden/{source.name}.safetensors"
    write_goldens(stage / file, [(case.feeds, case.truth) for case in chosen])
    return (Golden(source.name, file, len(chosen)),)


def _manifest(
    source: Source, order: Order, proven: Sequence[_Proven], goldens: tuple[Golden, ...]
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=source.name,
        programs=tuple(item.spec for item in proven),
        files={},
        quality=tuple(item.record for item in proven),
        goldens=goldens,
        provenance=Provenance(order.model, dict(order.recipe), installed_versions(), order.gate.seed),
        licence=order.licence,
    )
