"""`edge-sdk verify`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sdk.cli.screen import (
    EXIT_GATE,
    BundleArgument,
    JsonFlag,
    QuietFlag,
    ThreadsOption,
    print_json,
    progress_bar,
    reports_errors,
    stdout,
)

if TYPE_CHECKING:
    from rich.table import Table

    from sdk_runtimes.verifying import VerifyReport


@reports_errors
def verify(
    bundle: BundleArgument,
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help="Where to run; by default, each program where it can run here."),
    ] = None,
    threads: ThreadsOption = None,
    memory_limit: Annotated[
        str | None, typer.Option("--memory-limit", help="Refuse to load above this: 2GB.")
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Check every hash of a bundle and replay its goldens here.

    Ends with 3 unless at least one program passed and none failed.
    """
    from sdk_runtimes.verifying import verify as check

    with progress_bar(quiet=quiet) as progress:
        report = check(bundle, device, threads=threads, memory_limit=memory_limit, progress=progress)
    if as_json:
        print_json(asdict(report) | {"passed": report.passed})
    else:
        console = stdout()
        console.print(
            f"{report.bundle}: {report.files} files as the manifest lists them, {report.digest[:12]}"
        )
        console.print(_table(report))
    if not report.passed:
        raise typer.Exit(EXIT_GATE)


def _table(report: "VerifyReport") -> "Table":
    from rich.table import Table
    from rich.text import Text

    styles = {"passed": "green", "failed": "bold red", "unverified": "bold yellow"}
    table = Table(
        "program", "verdict", "device", "cases", "rel. RMSE", "limit", "why", box=None, header_style="bold"
    )
    for row in report.programs:
        worst = max((output.rel_rmse for output in row.outputs), default=None)
        words = row.verdict.upper() if row.verdict != "passed" else row.verdict
        table.add_row(
            row.program,
            Text(words, style=styles[row.verdict]),
            row.device,
            str(row.cases),
            "" if worst is None else f"{worst:.2g}",
            f"{row.tolerance.rel_rmse:.1g}",
            Text(row.reason),
        )
    return table
