"""Goldens, replayed on the device: do the shipped bytes compute here what they computed at export?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdk_runtimes import compiled_cache
from sdk_runtimes.bundle import Bundle
from sdk_runtimes.errors import QualityError
from sdk_runtimes.feeds import Array
from sdk_runtimes.goldens import Case, read_goldens
from sdk_runtimes.identity import identity_of
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits
from sdk_runtimes.manifest import OutputQuality, Tolerance
from sdk_runtimes.quality import Deviation, compare, rms, tolerance_for
from sdk_runtimes.session import Session
from sdk_runtimes.specs import ProgramSpec


@dataclass(frozen=True)
class Replay:
    """What a program computed of its goldens.

    Attributes:
        outputs: the worst case of every output; empty where the bundle has no goldens.
        tolerance: what they are held to: the gate's, else the precision's default.
        cases: how many goldens were replayed.
    """

    outputs: tuple[OutputQuality, ...]
    tolerance: Tolerance
    cases: int

    @property
    def failures(self) -> tuple[OutputQuality, ...]:
        """Outputs outside the tolerance."""
        return tuple(output for output in self.outputs if not _within(output, self.tolerance))


def replay(bundle: Bundle, session: Session, *, limits: Limits = DEFAULT_LIMITS) -> Replay:
    """Runs the goldens of a session's program and compares.

    Args:
        bundle: where the goldens lie.
        session: one of its programs, loaded.
        limits: caps on the goldens' file.

    Raises:
        UnsafeBundleError: the goldens cannot be read.
        FeedError: they do not fit the program.
        SessionError: the engine failed.
    """
    spec = session.spec
    cases = _cases(bundle, spec, limits)
    got = [session.run(inputs) for inputs, _ in cases]
    return Replay(
        outputs=tuple(_worst(item.name, cases, got) for item in spec.outputs) if cases else (),
        tolerance=_tolerance(bundle, spec),
        cases=len(cases),
    )


def replay_once(bundle: Bundle, session: Session, device: str, *, limits: Limits = DEFAULT_LIMITS) -> None:
    """Replays unless this very program passed before on this device, driver and versions.

    Args:
        bundle: where the goldens lie.
        session: one of its programs, loaded.
        device: the device id that it was opened with.
        limits: caps on the goldens' file.

    Raises:
        QualityError: an output is outside its tolerance. Such a verdict is not remembered.
    """
    about = identity_of(bundle, session.spec, device)
    key = compiled_cache.key_of(about)
    known = compiled_cache.read(compiled_cache.VERDICTS, key)
    if known and known.get("verdict") == "passed":
        return
    seen = replay(bundle, session, limits=limits)
    if seen.failures:
        raise _refusal(session.spec, device, seen)
    compiled_cache.write(compiled_cache.VERDICTS, key, {**about, "verdict": "passed", "cases": seen.cases})


def _cases(bundle: Bundle, spec: ProgramSpec, limits: Limits) -> list[Case]:
    files = [golden.file for golden in bundle.manifest.goldens if golden.program == spec.name]
    return [case for file in files for case in read_goldens(bundle.file(file), limits=limits)]


def _tolerance(bundle: Bundle, spec: ProgramSpec) -> Tolerance:
    record = bundle.quality(spec)
    return record.tolerance if record else tolerance_for(spec.precision)


def _worst(name: str, cases: Sequence[Case], got: Sequence[Mapping[str, Array]]) -> OutputQuality:
    truths = [truth[name] for _, truth in cases]
    usual = max((rms(truth) for truth in truths if truth.dtype.kind == "f"), default=0.0)
    seen = [
        (number, compare(truth, given[name], usual_rms=usual))
        for number, (truth, given) in enumerate(zip(truths, got, strict=True))
    ]
    number, worst = max(seen, key=lambda item: item[1].rel_rmse)
    return OutputQuality(
        output=name,
        draw=f"golden-{number}",
        rel_rmse=worst.rel_rmse,
        max_abs=worst.max_abs,
        cosine=worst.cosine,
        psnr_db=min(deviation.psnr_db for _, deviation in seen),
    )


def _within(output: OutputQuality, tolerance: Tolerance) -> bool:
    return Deviation(
        output.rel_rmse,
        output.max_abs,
        output.cosine,
        output.psnr_db,
        finite=output.rel_rmse != float("inf"),
    ).within(tolerance)


def _refusal(spec: ProgramSpec, device: str, seen: Replay) -> QualityError:
    worst = max(seen.failures, key=lambda output: output.rel_rmse)
    return QualityError(
        f"program {spec.id!r} computes something else on {device} than at export: output {worst.output!r} of "
        f"{worst.draw} is off by {worst.rel_rmse:.3g} (relative RMSE), {worst.psnr_db:.1f} dB PSNR; "
        f"allowed are {_allowed(seen.tolerance)}",
        why="the engine, its driver or the device is not the one that the bundle was proven on",
        fix="load(..., device=...) with another device; edge-sdk verify shows what passes where",
    )


def _allowed(tolerance: Tolerance) -> str:
    psnr = "" if tolerance.min_psnr_db is None else f" and at least {tolerance.min_psnr_db:g} dB"
    return f"{tolerance.rel_rmse:g}{psnr}"
