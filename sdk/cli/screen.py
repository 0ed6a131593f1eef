"""What every command shares: options, progress on stderr, results on stdout, errors as exit codes."""

import functools
import inspect
import json
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sdk.turns import Progress
from sdk_runtimes.errors import QualityError, SdkError

if TYPE_CHECKING:
    from rich.console import Console

R = TypeVar("R")

EXIT_ERROR = 1
EXIT_USAGE = 2  # typer's own
EXIT_GATE = 3

_PIPED_WIDTH = 160  # columns where nobody tells; tables are not cut to 80

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")]
DeviceOption = Annotated[
    str, typer.Option("--device", "-d", help="A device that `edge-sdk devices` lists, or auto.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="Compute threads.", min=1)]
_DEBUG = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
SizeOption = Annotated[
    list[str] | None, typer.Option("--size", help="Size of a symbolic axis: batch=4. Repeatable.")
]


def reports_errors(command: Callable[..., R]) -> Callable[..., R]:
    """Turns our errors into a message on stderr and an exit code; adds `--debug`, which shows the traceback.

    With `--json` the error also goes to stdout, as `{"error": {...}}`, so that a reader of JSON always gets
    some.
    """

    @functools.wraps(command)
    def guarded(debug: bool = False, **options: Any) -> R:
        try:
            return command(**options)
        except SdkError as error:
            if debug:
                traceback.print_exc()
            if options.get("as_json"):
                print_json({"error": _as_dict(error)})
            typer.echo(f"error: {error}", err=True)
            code = EXIT_GATE if isinstance(error, QualityError) else EXIT_ERROR
            raise typer.Exit(code) from error

    # typer reads the options off the signature
    known = inspect.signature(command)
    extra = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_DEBUG)
    guarded.__signature__ = known.replace(parameters=[*known.parameters.values(), extra])  # type: ignore[attr-defined] # functions may carry one (PEP 362)
    guarded.__annotations__ = {**command.__annotations__, "debug": _DEBUG}
    return guarded


def print_json(value: object) -> None:
    """One JSON document on stdout; paths as text, NaN and Inf, which JSON does not have, as null."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def stdout() -> "Console":
    """Where results go."""
    from rich.console import Console

    # No markup: names, notes and pip lines hold brackets of their own.
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, markup=False)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress | None]:
    """A bar on stderr, if somebody sits there; None otherwise."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total or None)

        yield show


def _as_dict(error: SdkError) -> Mapping[str, Any]:
    return {"kind": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
