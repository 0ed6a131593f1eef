"""The results as a web page: `build/demo/report.html`."""

from pathlib import Path

from samples.classify.pictures import PICTURES, Picture
from samples.classify.results import PYTORCH, Results, probability_of
from sdk import html_parts as html
from sdk.html_report import bench_section, bundle_sections, write_page
from sdk.units import ms_text
from sdk_runtimes.memory_sizes import format_size


def write_webpage(results: Results, path: Path) -> None:
    """Writes the report.

    Raises:
        WriteError: it could not be written.
    """
    write_page(
        path,
        "EfficientNet-Lite0, from PyTorch to two engines",
        "ImageNet weights, exported in one call, proven on the shipped files, run without torch.",
        [
            _headlines(results),
            _pictures_section(results),
            bench_section(results.bench),
            *bundle_sections(results.bundle),
        ],
    )


def _headlines(results: Results) -> html.Html:
    best, baseline = results.bench.fastest, results.bench.sides[0]
    worst = max(
        (item.rel_rmse for record in results.bundle.manifest.quality for item in record.outputs), default=None
    )
    rows = [
        _speed(results),
        ("same" if results.same_top1 else "DIFFERENT", "best class on every engine, for both photographs"),
    ]
    if worst is not None:
        rows.append((f"{worst:.0e}", "relative RMSE against eager fp32, the worst of all draws"))
    if best.cold_start and baseline.cold_start and best.cold_start.peak_rss_bytes:
        told = format_size(baseline.cold_start.peak_rss_bytes or 0)
        rows.append((format_size(best.cold_start.peak_rss_bytes), f"peak memory at run time; PyTorch {told}"))
    if best.share is not None and not results.bench.busy:
        rows.append((f"{best.share * 100:.0f} %", "of what this CPU can do, by its own measured peaks"))
    rows.append((f"{results.export_s:.1f} s", "to trace, lower, write and prove"))
    return html.headlines(rows)


def _speed(results: Results) -> tuple[str, str]:
    best = results.bench.fastest
    median = f"{ms_text(best.timing.median_ms)} ms"
    if results.bench.busy:
        return median, f"a run on {best.device}; the machine was too busy to compare"
    return f"{best.ratio:.1f} ×", f"as fast as PyTorch eager ({best.device}, {median})"


def _pictures_section(results: Results) -> html.Html:
    shift = f"{float(f'{results.largest_shift * 100:.1g}'):.9f}".rstrip("0") + " percentage points"
    return html.section(
        "What they see",
        html.cards(_card(results, picture) for picture in PICTURES),
        intro="The five best classes by PyTorch, and the probability that each engine gives them. The "
        f"engines ran in a process without torch; no probability differs by more than {shift}.",
    )


def _card(results: Results, picture: Picture) -> html.Html:
    rows = [
        (
            html.text(guess.name),
            *(
                html.share_cell(probability_of(side[picture.name], guess.index))
                for side in results.guesses.values()
            ),
        )
        for guess in results.guesses[PYTORCH][picture.name]
    ]
    headers = ("class", *results.guesses)
    best = results.guesses[PYTORCH][picture.name][0].name
    return html.card(
        html.picture(picture.path.read_bytes(), "image/jpeg", f"A photograph: {best}", picture.credit),
        html.table(headers, rows, numeric=range(1, len(headers))),
    )
