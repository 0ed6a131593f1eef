"""`edge-sdk`: the verbs of the SDK from a shell."""

from typing import Annotated

import typer

from sdk.cli.bench_command import bench
from sdk.cli.cache_command import cache
from sdk.cli.devices_command import devices
from sdk.cli.export_command import export
from sdk.cli.forget_command import forget
from sdk.cli.inspect_command import inspect
from sdk.cli.prune_command import prune
from sdk.cli.run_command import run
from sdk.cli.verify_command import verify

app = typer.Typer(
    name="edge-sdk",
    help="From a trained PyTorch model, in one call, to a verified bundle that runs without torch.",
    epilog="Exit codes: 0 done, 1 error, 2 usage, 3 the quality gate failed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # `--debug` shows Python's own traceback, without local variables
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (export, prune, forget, verify, inspect, run, bench, devices):
    app.command()(command)
app.add_typer(cache, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"edge-sdk {version('edge-sdk')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a trained PyTorch model, in one call, to a verified bundle that runs without torch."""


def main() -> None:
    """The entry point of the command `edge-sdk`."""
    app()
