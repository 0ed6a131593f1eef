"""The report of a bundle and its bench, as sections of an HTML page."""

from collections.abc import Sequence
from pathlib import Path

from sdk.bench_report import BenchReport, BenchSide
from sdk.bench_table import floor_text, peak_text
from sdk.html_parts import (
    Bar,
    Html,
    badge,
    bars,
    facts,
    joined,
    page,
    paragraph,
    section,
    table,
    text,
    warning,
)
from sdk.units import flops_text, ms_text
from sdk_runtimes.bundle import Bundle, open_bundle
from sdk_runtimes.errors import WriteError
from sdk_runtimes.manifest import QualityRecord
from sdk_runtimes.memory_sizes import format_size
from sdk_runtimes.specs import ProgramSpec


def write_page(path: Path, title: str, subtitle: str, sections: list[Html]) -> None:
    """Writes a page.

    Raises:
        WriteError: the disk is full, or may not be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(title, subtitle, sections), encoding="utf-8")
    except OSError as error:
        raise WriteError(f"{path} was not written", why=str(error), fix="choose another place") from error


def write_bundle_report(path: Path, bundles: Sequence[str], report: BenchReport) -> None:
    """Writes a page about some bundles and their bench.

    Raises:
        WriteError: it could not be written.
        BundleError: a bundle that must not be loaded.
    """
    opened = [open_bundle(bundle) for bundle in bundles]
    title = ", ".join(dict.fromkeys(bundle.manifest.name for bundle in opened))
    parts = [bench_section(report)]
    for bundle in opened:
        parts += bundle_sections(bundle)
    write_page(path, title, "What it computes, how fast, and where it comes from", parts)


def bundle_sections(bundle: Bundle) -> list[Html]:
    """All that a bundle says about itself."""
    return [
        quality_section(bundle),
        programs_section(bundle),
        files_section(bundle),
        provenance_section(bundle),
    ]


def bench_section(report: BenchReport) -> Html:
    """Latency bars with ratios, and all figures below."""
    best = report.fastest
    rows = [
        Bar(
            side.label,
            side.timing.median_ms,
            f"{ms_text(side.timing.median_ms)} ms",
            _ratio(report, side),
            side is best,
        )
        for side in report.sides
    ]
    threads = f"{report.threads} threads" if report.threads else "each engine's own number of threads"
    intro = (
        f"{report.machine}; {threads}. Medians of {best.timing.runs} runs, by turns in one process. "
        "Cold start and peak memory are those of a fresh process: imports, load, first run."
    )
    busy = [warning(report.busy)] if report.busy else []
    remarks = (floor_text(report), *(f"Not run here: {reason}" for reason in report.skipped))
    notes = [paragraph(words) for words in remarks if words]
    return section("Speed", *busy, bars(rows), _bench_table(report), *notes, intro=intro)


def quality_section(bundle: Bundle) -> Html:
    """What the gate saw, every program and output."""
    rows = [row for program in bundle.manifest.programs for row in _quality_rows(bundle, program)]
    headers = (
        "program",
        "verdict",
        "ran on",
        "output",
        "rel. RMSE",
        "limit",
        "max abs",
        "PSNR",
        "worst draw",
    )
    return section(
        "Quality",
        table(headers, rows, numeric=(4, 5, 6, 7)),
        intro="The files as written, run and compared with eager fp32 PyTorch on the sample inputs and on "
        "fresh draws. The worst draw of every output stands here.",
    )


def files_section(bundle: Bundle) -> Html:
    """Every file with its size and hash."""
    rows = [
        (_code(path), text(format_size(entry.size)), _code(entry.sha256))
        for path, entry in sorted(bundle.manifest.files.items())
    ]
    total = f"{format_size(bundle.size_bytes)} in {len(rows)} files; digest of the manifest: {bundle.digest}."
    return section("Files", table(("file", "size", "sha256"), rows, numeric=(1,)), intro=total)


def provenance_section(bundle: Bundle) -> Html:
    """Where the bundle comes from."""
    manifest = bundle.manifest
    made = {
        "model": manifest.provenance.model,
        "licence": manifest.licence or "not stated",
        **manifest.provenance.recipe,
        "seed of the draws": manifest.provenance.seed,
        **manifest.metadata,
    }
    versions = ", ".join(f"{name} {version}" for name, version in manifest.provenance.versions.items())
    return section("Provenance", facts(made | {"versions": versions}))


def programs_section(bundle: Bundle) -> Html:
    """What each program takes and gives."""
    rows = [
        (
            _code(program.id),
            text(program.precision),
            joined([_code(item) for item in program.inputs], "<br>"),
            joined([_code(item) for item in program.outputs], "<br>"),
            text(format_size(sum(bundle.manifest.files[file].size for file in program.files))),
            text(flops_text(program.flops) if program.flops else "unknown"),
        )
        for program in bundle.manifest.programs
    ]
    headers = ("program", "precision", "inputs", "outputs", "size", "FLOPs")
    return section("Programs", table(headers, rows, numeric=(4, 5)))


def verdict_badge(record: QualityRecord | None) -> Html:
    """The gate's verdict as a coloured word."""
    if record is not None and record.verdict == "passed":
        return badge("passed", "good")
    return badge("UNVERIFIED", "warn")


def _quality_rows(bundle: Bundle, program: ProgramSpec) -> list[tuple[Html, ...]]:
    record = bundle.quality(program)
    head = (_code(program.id), verdict_badge(record))
    blank = (text(""),) * 5
    if record is None:
        return [(*head, text("the gate was off"), text(""), *blank)]
    if not record.outputs:
        return [(*head, text(record.evaluator or record.reason), text(""), *blank)]
    limit = text(f"{record.tolerance.rel_rmse:.0e}")
    return [
        (
            *head,
            text(record.evaluator or record.reason),
            text(item.output),
            text(f"{item.rel_rmse:.1e}"),
            limit,
            text(f"{item.max_abs:.1e}"),
            text(f"{item.psnr_db:.0f} dB"),
            text(item.draw),
        )
        for item in record.outputs
    ]


def _bench_table(report: BenchReport) -> Html:
    rows = [
        (
            text(side.label),
            text(side.device),
            text(side.precision),
            text(ms_text(side.timing.median_ms)),
            text(ms_text(side.timing.p90_ms)),
            text(f"{side.timing.throughput_per_s:,.0f}"),
            text(f"{side.ratio:.2f} ×"),
            text(f"{side.share * 100:.0f} %" if side.share is not None else "–"),
            text(f"{side.cold_start.total_ms:,.0f}" if side.cold_start else "–"),
            text(peak_text(side)),
        )
        for side in report.sides
    ]
    headers = (
        "side", "device", "precision", "median ms", "p90 ms", "runs/s", "ratio", "of this CPU",
        "cold start ms", "peak memory",
    )  # fmt: skip
    return table(headers, rows, numeric=range(3, 10))


def _ratio(report: BenchReport, side: BenchSide) -> str:
    return "baseline" if side is report.sides[0] else f"{side.ratio:.2f} × as fast"


def _code(value: object) -> Html:
    return Html(f"<code>{text(value)}</code>")
