"""`edge-sdk run`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdk.cli.screen import (
    BundleArgument,
    DeviceOption,
    JsonFlag,
    ThreadsOption,
    print_json,
    reports_errors,
    stdout,
)

if TYPE_CHECKING:
    from sdk_runtimes.feeds import Array
    from sdk_runtimes.session import Session


@reports_errors
def run(
    bundle: BundleArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="NAME=FILE (.npy, .npz, .safetensors), or FILE.npz / FILE.safetensors with one array an "
            "input. Repeatable.",
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Where the outputs go: .npz or .safetensors.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The bundle's program of this target.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The bundle's program of this name.")] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    memory_limit: Annotated[
        str | None, typer.Option("--memory-limit", help="Refuse to load above this: 2GB.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file at --out.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a bundle once on arrays from files."""
    from sdk.array_files import check_out, read_feeds, write_arrays
    from sdk_runtimes.loading import load

    if out:
        check_out(Path(out), overwrite=overwrite)
    feeds = read_feeds(inputs or ())
    with load(
        bundle, device, target=target, name=name, memory_limit=memory_limit, threads=threads
    ) as session:
        _check_names(session, feeds)
        start = time.perf_counter()
        results = session.run(feeds)
        summary = _summary(session, results, (time.perf_counter() - start) * 1e3)
    if out:
        write_arrays(Path(out), results)
        summary["out"] = out
    if as_json:
        print_json(summary)
    else:
        _print(summary)


def _check_names(session: "Session", feeds: "dict[str, Array]") -> None:
    """The session would refuse them too, and tell Python programmers how to mend it."""
    from sdk_runtimes.errors import FeedError

    missing = [item for item in session.inputs if item.name not in feeds]
    if missing:
        raise FeedError(
            f"{session.spec.id} takes {', '.join(map(str, session.inputs))}",
            why=f"no value for {', '.join(item.name for item in missing)}",
            fix=" ".join(f"--input {item.name}=FILE.npy" for item in missing),
        )


def _summary(session: "Session", results: "dict[str, Array]", run_ms: float) -> dict[str, Any]:
    return {
        "program": session.spec.id,
        "device": session.device,
        "fallbacks": list(session.placement.fallbacks),
        "load_ms": session.metrics().load_ms,
        "run_ms": run_ms,
        "outputs": {name: _figures(array) for name, array in results.items()},
    }


def _figures(array: "Array") -> dict[str, Any]:
    import numpy as np

    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    known = finite.size > 0
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "min": float(finite.min()) if known else None,
        "max": float(finite.max()) if known else None,
        "mean": float(finite.mean(dtype=np.float64)) if known else None,
        "not_finite": int(array.size - finite.size),
    }


def _print(summary: dict[str, Any]) -> None:
    from rich.table import Table

    console = stdout()
    console.print(
        f"{summary['program']} on {summary['device']}: loaded in {summary['load_ms']:.0f} ms, "
        f"ran in {summary['run_ms']:.2f} ms",
    )
    for reason in summary["fallbacks"]:
        console.print(f"note: {reason}")
    table = Table("output", "dtype", "shape", "min", "max", "mean", "NaN/Inf", box=None, header_style="bold")
    for name, row in summary["outputs"].items():
        figures = ("" if row[key] is None else f"{row[key]:.6g}" for key in ("min", "max", "mean"))
        table.add_row(name, row["dtype"], str(row["shape"]), *figures, str(row["not_finite"]))
    console.print(table)
    if "out" in summary:
        console.print(f"written to {summary['out']}")
