"""`edge-sdk bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdk.cli.screen import (
    DeviceOption,
    JsonFlag,
    QuietFlag,
    SizeOption,
    ThreadsOption,
    print_json,
    progress_bar,
    reports_errors,
    stdout,
)

if TYPE_CHECKING:
    from sdk_runtimes.session import Session


@reports_errors
def bench(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="One bundle, or several.")],
    device: DeviceOption = "auto",
    runs: Annotated[int, typer.Option("--runs", help="Measured runs of each side.", min=1)] = 50,
    warmup: Annotated[int, typer.Option("--warmup", help="Runs before those.", min=0)] = 5,
    threads: ThreadsOption = None,
    size: SizeOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="MODULE:FUNCTION", help="The PyTorch model, run eagerly, as baseline."
        ),
    ] = None,
    cold_start: Annotated[bool, typer.Option(help="Measure a fresh process too.")] = True,
    floor: Annotated[bool, typer.Option(help="Measure what the machine can do, too.")] = True,
    html: Annotated[str | None, typer.Option("--html", help="Write a report there.")] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Measure every program of some bundles, side by side and by turns."""
    from sdk.benching import bench as measure
    from sdk.cli.arguments import parse_sizes

    sizes = parse_sizes(size or ())
    with progress_bar(quiet=quiet) as progress:
        report = measure(
            bundles,
            device=device,
            runs=runs,
            warmup=warmup,
            against=_eager(against, bundles[0], threads) if against else None,
            threads=threads,
            sizes=sizes,
            cold_start=cold_start,
            floor=floor,
            progress=progress,
        )
    if html:
        from sdk.html_report import write_bundle_report

        write_bundle_report(Path(html), bundles, report)
    if as_json:
        print_json(report.as_dict())
        return
    from sdk.bench_table import bench_table

    console = stdout()
    for part in bench_table(report):
        console.print(part)


def _eager(source: str, bundle: str, threads: int | None) -> "dict[str, Session]":
    from sdk.cli.arguments import build_model
    from sdk_runtimes.bundle import open_bundle
    from sdk_runtimes.sessions.eager import eager_session

    model, _ = build_model(source)
    spec = open_bundle(bundle).manifest.programs[0]
    return {"PyTorch eager": eager_session(model.eval(), spec, threads=threads)}
