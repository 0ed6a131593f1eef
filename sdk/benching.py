"""`sdk.bench`: how fast, how soon, how large, and how near to what the machine can do."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from sdk.bench_feeds import bench_feeds, sizes_of
from sdk.bench_report import BenchReport, BenchSide, machine_name
from sdk.cold_start import ColdStart, Start, measure_cold_start
from sdk.floor import Floor, Peaks, floor_of, gemm_run, peaks_of, usable_threads
from sdk.other_load import cores_taken, cpu_clock
from sdk.turns import Progress, Timing, by_turns
from sdk_runtimes.bundle import Bundle, describe, open_bundle
from sdk_runtimes.errors import ArgumentError, DeviceError, MissingExtraError, SdkError
from sdk_runtimes.feeds import Array
from sdk_runtimes.loading import load
from sdk_runtimes.session import Session
from sdk_runtimes.specs import ProgramSpec
from sdk_runtimes.speeds import record_speed

_MACHINE = "\0machine"  # no label of a side

BundlePath = str | os.PathLike[str] | Bundle


def bench(
    target: BundlePath | Sequence[BundlePath],
    *,
    device: str = "auto",
    runs: int = 50,
    warmup: int = 5,
    against: Mapping[str, Session] | None = None,
    threads: int | None = None,
    sizes: Mapping[str, int] | None = None,
    cold_start: bool = True,
    floor: bool = True,
    progress: Progress | None = None,
) -> BenchReport:
    """Measures every program of some bundles, side by side.

    The sides run by turns in one process (A A A B B B A A A …). The measured speeds are remembered, so that
    `load(..., device="auto")` picks the fastest from then on.

    Args:
        target: a bundle, or several.
        device: "auto" runs every program on its best device here; else a device of `sdk.devices()`.
        runs: measured runs of each side.
        warmup: runs of each side before those.
        against: label -> session to measure beside them, such as PyTorch eager; the first is the baseline.
            Fed with the inputs of the first program.
        threads: compute threads of each session; None leaves the number to the engines.
        sizes: symbol -> size; the goldens' sizes otherwise.
        cold_start: measure also a fresh process from nothing to the first answer.
        floor: measure also the peaks of this machine.
        progress: told `(stage, done, total)`.

    Raises:
        ArgumentError: fewer than one run, or sizes that do not fit.
        DeviceError: no program can run here.
        SdkError: what `load` raises.
    """
    if runs < 1 or warmup < 0:
        raise ArgumentError(
            f"runs={runs}, warmup={warmup}", why="there must be something to measure", fix="runs=50, warmup=5"
        )
    how = _How(device, runs, warmup, threads, dict(sizes or {}), cold_start, floor, progress)
    bundles = [item if isinstance(item, Bundle) else open_bundle(item) for item in _listed(target)]
    with ExitStack() as stack:
        entrants, skipped = _enter(bundles, how, stack)
        rivals = [_Entrant(label, one, entrants[0].feeds, None) for label, one in (against or {}).items()]
        return _measure(_distinct([*rivals, *entrants]), skipped, how)


@dataclass(frozen=True)
class _How:
    """The arguments of `bench`."""

    device: str
    runs: int
    warmup: int
    threads: int | None
    sizes: Mapping[str, int]
    cold_start: bool
    floor: bool
    progress: Progress | None


@dataclass(frozen=True)
class _Entrant:
    """One side before it is measured; `bundle` is None for a session that the caller brought."""

    label: str
    session: Session
    feeds: Mapping[str, Array]
    bundle: Bundle | None

    def run(self) -> None:
        self.session.run(self.feeds)


def _listed(target: BundlePath | Sequence[BundlePath]) -> Sequence[BundlePath]:
    return [target] if isinstance(target, str | os.PathLike | Bundle) else target


def _enter(bundles: Sequence[Bundle], how: _How, stack: ExitStack) -> tuple[list[_Entrant], list[str]]:
    """Loads what can run here; what cannot comes back with its reason."""
    entrants, skipped, refused = [], [], None
    for bundle in bundles:
        for spec in bundle.manifest.programs:
            try:
                session = _load(bundle, spec, how, stack)
            except (DeviceError, MissingExtraError) as error:
                skipped.append(f"{spec.id}: {error.what}")
                refused = error
                continue
            label = spec.id if len(bundles) == 1 else f"{bundle.path.name}/{spec.id}"
            entrants.append(_Entrant(label, session, bench_feeds(bundle, spec, how.sizes), bundle))
    if not entrants:
        raise _nothing_runs(skipped, refused)
    return entrants, skipped


def _distinct(entrants: Sequence[_Entrant]) -> list[_Entrant]:
    """Numbers labels that come again: two bundles may bear one name, and one may be given twice."""
    seen: Counter[str] = Counter()
    named = []
    for entrant in entrants:
        seen[entrant.label] += 1
        again = seen[entrant.label]
        named.append(entrant if again == 1 else replace(entrant, label=f"{entrant.label} ({again})"))
    return named


def _load(bundle: Bundle, spec: ProgramSpec, how: _How, stack: ExitStack) -> Session:
    session = load(bundle, how.device, target=spec.target, name=spec.name, threads=how.threads)
    return stack.enter_context(session)


def _nothing_runs(skipped: Sequence[str], cause: SdkError | None) -> DeviceError:
    return DeviceError(
        "none of the programs can run here",
        why="; ".join(skipped) or "the bundle holds no programs",
        fix=(cause.fix if cause else "") or "sdk.devices() lists what is usable; export for one of those",
    )


def _measure(entrants: Sequence[_Entrant], skipped: Sequence[str], how: _How) -> BenchReport:
    start = cpu_clock()
    timings, peaks = _time(entrants, how)
    others = cores_taken(start, cpu_clock())
    _remember(entrants, timings, how)
    baseline_ms = timings[entrants[0].label].median_ms
    sides = []
    for done, entrant in enumerate(entrants):
        if how.progress:
            how.progress(f"cold start of {entrant.label}", done, len(entrants))
        sides.append(_side(entrant, timings[entrant.label], baseline_ms, peaks, how))
    return BenchReport(
        sides=tuple(sides),
        threads=how.threads,
        sizes=sizes_of(entrants[-1].session.inputs, entrants[-1].feeds),
        machine=machine_name(),
        peaks=peaks,
        skipped=tuple(skipped),
        others=others,
    )


def _time(entrants: Sequence[_Entrant], how: _How) -> tuple[dict[str, Timing], Peaks | None]:
    """Times the sides, and among them the machine itself: its peak is that of the same minutes."""
    calls: dict[str, Callable[[], object]] = {entrant.label: entrant.run for entrant in entrants}
    threads = how.threads or usable_threads()
    if how.floor:
        calls[_MACHINE] = gemm_run(threads)
    timings = by_turns(calls, runs=how.runs, warmup=how.warmup, progress=how.progress)
    gemm = timings.pop(_MACHINE, None)
    return timings, peaks_of(threads, gemm.best_ms) if gemm else None


def _remember(entrants: Sequence[_Entrant], timings: Mapping[str, Timing], how: _How) -> None:
    """For `device="auto"`; speeds at sizes that the caller chose say nothing about the usual ones."""
    for entrant in entrants:
        if entrant.bundle is not None and not how.sizes:
            spec, latency_ms = entrant.session.spec, timings[entrant.label].median_ms
            record_speed(entrant.bundle, entrant.session.device, spec.target, latency_ms, name=spec.name)


def _side(entrant: _Entrant, timing: Timing, baseline_ms: float, peaks: Peaks | None, how: _How) -> BenchSide:
    spec, bundle = entrant.session.spec, entrant.bundle
    floor = _floor(entrant, peaks, how)
    return BenchSide(
        label=entrant.label,
        program=spec.id if bundle else "",
        precision=spec.precision,
        device=entrant.session.device,
        verdict=describe(bundle.quality(spec)) if bundle else "",
        timing=timing,
        ratio=baseline_ms / timing.median_ms,
        cold_start=_cold_start(entrant, how),
        floor=floor,
        share=floor.share(timing.median_ms) if floor else None,
    )


def _floor(entrant: _Entrant, peaks: Peaks | None, how: _How) -> Floor | None:
    """None off the CPU, whose peaks are the ones we measure, and away from the sample sizes."""
    if peaks is None or how.sizes or entrant.session.placement.device != "cpu":
        return None
    return floor_of(entrant.session.spec, sizes_of(entrant.session.inputs, entrant.feeds), peaks)


def _cold_start(entrant: _Entrant, how: _How) -> ColdStart | None:
    if not how.cold_start or entrant.bundle is None:
        return None
    spec = entrant.session.spec
    return measure_cold_start(
        Start(
            path=str(entrant.bundle.path),
            device=entrant.session.device,
            target=spec.target,
            name=spec.name,
            threads=how.threads,
            sizes=how.sizes,
        )
    )
