"""`verify`: every program of a bundle, replayed here and now."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sdk_runtimes.bundle import Bundle, open_bundle
from sdk_runtimes.choosing import AUTO
from sdk_runtimes.errors import DeviceError, MemoryLimitError, MissingExtraError, SdkError, UnknownChoiceError
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits
from sdk_runtimes.loading import load
from sdk_runtimes.manifest import OutputQuality, Tolerance
from sdk_runtimes.quality import tolerance_for
from sdk_runtimes.replay import replay
from sdk_runtimes.specs import ProgramSpec

# (stage, done, total)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ProgramVerdict:
    """What became of one program.

    Attributes:
        program: `ProgramSpec.id`.
        verdict: "passed", "failed", or "unverified" where it could not run here.
        device: where it ran; empty if nowhere.
        reason: why it failed or is unverified; empty otherwise.
        tolerance: what it is held to.
        cases: goldens that were replayed.
        outputs: the worst case of every output.
    """

    program: str
    verdict: Literal["passed", "failed", "unverified"]
    device: str
    reason: str
    tolerance: Tolerance
    cases: int = 0
    outputs: tuple[OutputQuality, ...] = ()


@dataclass(frozen=True)
class VerifyReport:
    """What became of a bundle. That it exists means that every hash and size was right.

    Attributes:
        bundle: name in the manifest.
        digest: of the manifest.
        files: whose hashes were checked.
        programs: one verdict each.
    """

    bundle: str
    digest: str
    files: int
    programs: tuple[ProgramVerdict, ...]

    @property
    def passed(self) -> bool:
        """Whether no program failed and at least one passed. Unverified ones are told, not counted."""
        verdicts = {program.verdict for program in self.programs}
        return "failed" not in verdicts and "passed" in verdicts


def verify(
    path: str | os.PathLike[str],
    device: str | None = None,
    *,
    memory_limit: int | str | None = None,
    threads: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> VerifyReport:
    """Checks every hash, then replays the goldens of every program, whatever was cached.

    Args:
        path: the bundle's folder.
        device: where to run; None takes for each program the first device that opens it.
        memory_limit: as for `load`.
        threads: as for `load`.
        limits: caps on what the bundle may ask of this machine.
        progress: told `(program id, done, total)`.

    Raises:
        BundleError: the bundle is altered, malformed or not there.
        UnknownChoiceError: no such device.
    """
    bundle = open_bundle(path, limits=limits)
    programs = bundle.manifest.programs
    verdicts = []
    for done, spec in enumerate(programs):
        if progress:
            progress(spec.id, done, len(programs))
        verdicts.append(
            _verdict(bundle, spec, device or AUTO, memory_limit=memory_limit, threads=threads, limits=limits)
        )
    if progress:
        progress("done", len(programs), len(programs))
    return VerifyReport(bundle.manifest.name, bundle.digest, len(bundle.manifest.files), tuple(verdicts))


def _verdict(
    bundle: Bundle,
    spec: ProgramSpec,
    device: str,
    *,
    memory_limit: int | str | None,
    threads: int | None,
    limits: Limits,
) -> ProgramVerdict:
    record = bundle.quality(spec)
    tolerance = record.tolerance if record else tolerance_for(spec.precision)
    try:
        session = load(
            bundle,
            device,
            target=spec.target,
            name=spec.name,
            memory_limit=memory_limit,
            threads=threads,
            replay=False,
        )
    except UnknownChoiceError:
        raise
    except (DeviceError, MissingExtraError, MemoryLimitError) as error:
        return ProgramVerdict(spec.id, "unverified", "", _reason(error), tolerance)
    except SdkError as error:
        return ProgramVerdict(spec.id, "failed", "", _reason(error), tolerance)
    with session:
        try:
            seen = replay(bundle, session, limits=limits)
        except SdkError as error:
            return ProgramVerdict(spec.id, "failed", session.device, _reason(error), tolerance)
        if not seen.cases:
            reason = "the bundle has no goldens of it"
            return ProgramVerdict(spec.id, "unverified", session.device, reason, tolerance)
        off = [f"{output.output} is off by {output.rel_rmse:.3g}" for output in seen.failures]
        return ProgramVerdict(
            program=spec.id,
            verdict="failed" if off else "passed",
            device=session.device,
            reason="; ".join(off),
            tolerance=seen.tolerance,
            cases=seen.cases,
            outputs=seen.outputs,
        )


def _reason(error: SdkError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what
