"""A bench as a table in a terminal."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sdk.bench_report import BenchReport, BenchSide
from sdk.units import ms_text
from sdk_runtimes.memory_sizes import format_size


def bench_table(report: BenchReport) -> Iterator[RenderableType]:
    """The table, what the machine can do, what to be wary of, and what could not run."""
    table = Table(box=None, header_style="bold", title=_title(report), title_justify="left")
    table.add_column("side")
    table.add_column("device")
    table.add_column("precision")
    for name in ("median ms", "p90 ms", "runs/s", "ratio", "of this CPU", "cold start ms", "peak memory"):
        table.add_column(name, justify="right")
    for side in report.sides:
        style = "bold" if side is report.fastest and len(report.sides) > 1 else ""
        table.add_row(*_cells(side), style=style)
    yield table
    if floor := floor_text(report):
        yield Text(floor, style="dim")
    if report.busy:
        yield Text(report.busy, style="yellow")
    for side in report.sides:
        if side.verdict.startswith("UNVERIFIED"):
            yield Text(f"{side.label}: {side.verdict}", style="bold yellow")
    for reason in report.skipped:
        yield Text(f"not run here: {reason}", style="yellow")


def floor_text(report: BenchReport) -> str:
    """What the machine could do at best, in a sentence; empty where it was not measured."""
    floors = [side.floor for side in report.sides if side.floor]
    if report.peaks is None or not floors:
        return ""
    floor = floors[-1]
    return (
        f"This machine reaches {report.peaks.gemm_gflops:.0f} GFLOP/s in fp32 matrix products with "
        f"{report.peaks.threads} threads, and moves {floor.bandwidth_gbs:.0f} GB/s. At that, the program "
        f"takes at least {ms_text(floor.floor_ms)} ms ({ms_text(floor.compute_ms)} ms for its FLOPs, "
        f"{ms_text(floor.memory_ms)} ms for its bytes): that is 100 % of this CPU."
    )


def peak_text(side: BenchSide) -> str:
    """Peak memory of a fresh process; a dash where it was not measured."""
    peak = side.cold_start.peak_rss_bytes if side.cold_start else None
    return format_size(peak) if peak else "–"


def _title(report: BenchReport) -> str:
    threads = f"{report.threads} threads" if report.threads else "threads as each engine likes"
    sizes = "".join(f", {symbol}={size}" for symbol, size in report.sizes.items())
    return f"{report.machine}; {threads}; medians of {report.fastest.timing.runs} runs by turns{sizes}"


def _cells(side: BenchSide) -> list[str]:
    return [
        side.label,
        side.device,
        side.precision,
        ms_text(side.timing.median_ms),
        ms_text(side.timing.p90_ms),
        f"{side.timing.throughput_per_s:,.0f}",
        f"{side.ratio:.2f} ×",
        f"{side.share * 100:.0f} %" if side.share is not None else "–",
        f"{side.cold_start.total_ms:,.0f}" if side.cold_start else "–",
        peak_text(side),
    ]
