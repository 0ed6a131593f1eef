"""Pruned networks as rows: medians over seeds, a table, and which of the bars of issue 3 they reach."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from benchmarks.peers.measures import Deviation

BAR_POINT, BAR_ERROR, BAR_SECONDS = 0.3, 3.0, 180.0
OURS = "ours"


@dataclass(frozen=True)
class Row:
    """One pruned network.

    Attributes:
        method: who pruned, and how.
        removed: share of the FLOPs that was to go.
        seed: of the calibration views.
        left: share of the FLOPs left, measured.
        deviation: from the dense network, on the held-out views.
        seconds: that pruning took; of the peer, with the search for the ratio.
        threads: that PyTorch computed with.
        ratio: of channels, that the peer was asked for; 0 for ours.
        warnings: of our report.
    """

    method: str
    removed: float
    seed: int
    left: float
    deviation: Deviation
    seconds: float
    threads: int
    ratio: float = 0.0
    warnings: tuple[str, ...] = ()


Medians = Mapping[tuple[str, float], Row]


def medians_of(rows: Iterable[Row]) -> dict[tuple[str, float], Row]:
    """(method, removed) -> a row of medians over the seeds."""
    together: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        together.setdefault((row.method, row.removed), []).append(row)
    return {key: _median_row(some) for key, some in together.items()}


def _median_row(rows: list[Row]) -> Row:
    energy = median(row.deviation.energy for row in rows)
    agreement = median(row.deviation.agreement for row in rows)
    return Row(
        rows[0].method,
        rows[0].removed,
        -1,
        median(row.left for row in rows),
        Deviation(energy, energy**0.5, agreement),
        median(row.seconds for row in rows),
        rows[0].threads,
    )


def bars_of(medians: Medians, rows: Sequence[Row]) -> dict[str, bool]:
    """Bar -> whether it is reached, of those that the rows tell about; what was not run is not compared."""
    mine = {removed: row.deviation for (method, removed), row in medians.items() if method == OURS}
    theirs = [
        row.deviation for (method, removed), row in medians.items() if method != OURS and removed == BAR_POINT
    ]
    pairs = [
        (mine[removed], row.deviation)
        for (method, removed), row in medians.items()
        if method != OURS and removed in mine
    ]
    bars = {}
    if pairs:
        bars[f"ahead at every point ({len(pairs)} rows of others)"] = all(
            ours.rmse < other.rmse and ours.agreement > other.agreement for ours, other in pairs
        )
    if theirs and BAR_POINT in mine:
        best = min(theirs, key=lambda off: off.energy)
        for measure in ("energy", "rmse"):
            factor = getattr(best, measure) / getattr(mine[BAR_POINT], measure)
            reached = f"{factor:.2f} ×, best of {len(theirs)} rows"
            bars[f"{BAR_ERROR:g} × in {measure} at {BAR_POINT:.0%} ({reached})"] = factor >= BAR_ERROR
    if mine:
        slowest = max((row for row in rows if row.method == OURS), key=lambda row: row.seconds)
        text = f"at most {BAR_SECONDS:g} s ({slowest.seconds:.0f} s, threads: {slowest.threads})"
        bars[text] = slowest.seconds <= BAR_SECONDS
    return bars


def table_of(medians: Medians, removed: Sequence[float], title: str) -> Table:
    """A line for each method, a column for each share of FLOPs removed."""
    table = Table("method", box=None, header_style="bold", title_justify="left")
    table.title = title
    points = sorted(removed)
    for point in points:
        table.add_column(f"−{point:.0%} FLOPs", justify="right")
    table.add_column("seconds", justify="right")
    for method in dict.fromkeys(method for method, _ in medians):
        found = [medians.get((method, point)) for point in points]
        seconds = max(row.seconds for row in found if row)
        table.add_row(method, *(cell(row) if row else "not run" for row in found), f"{seconds:.0f}")
    return table


def cell(row: Row) -> str:
    """RMSE (energy), same top-1, FLOPs left."""
    off = row.deviation
    return f"{off.rmse:.3f} ({off.energy:.3f}) {off.agreement:.0%} {row.left:.1%}"


def figures(row: Row) -> dict[str, float]:
    """For JSON."""
    off = row.deviation
    return {
        "energy": off.energy,
        "rmse": off.rmse,
        "agreement": off.agreement,
        "flops_left": row.left,
        "seconds": row.seconds,
    }
