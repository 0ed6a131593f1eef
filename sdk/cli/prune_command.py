"""`edge-sdk prune`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdk.cli.screen import JsonFlag, QuietFlag, print_json, progress_bar, reports_errors, stdout
from sdk_runtimes.errors import ArgumentError, OutputExistsError, WriteError

if TYPE_CHECKING:
    from sdk_pruning.prune import PruneResult
    from sdk_runtimes.bundle import Bundle

FILES = ("plan.json", "weights.safetensors", "report.txt")


@reports_errors
def prune(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="A function that returns a model or (model, sample_inputs), importable from here.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="MODULE:FUNCTION",
            help="A function that returns or generates calibration batches: inputs, no labels needed.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="The folder for plan.json, weights.safetensors, report.txt.")
    ],
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Share of channels that goes, in every group.")
    ] = None,
    flops: Annotated[float | None, typer.Option("--flops", help="Share of the FLOPs that stays.")] = None,
    latency_ms: Annotated[
        float | None, typer.Option("--latency-ms", help="Latency to reach on --target and --device.")
    ] = None,
    target: Annotated[
        str, typer.Option("--target", "-t", help="What ships: onnx, openvino, coreml, tensorrt.")
    ] = "onnx",
    device: Annotated[
        str, typer.Option("--device", "-d", help="Where latency is measured; a device, a kind, or auto.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", help="Compute threads.", min=1)] = None,
    measure: Annotated[
        bool | None, typer.Option("--measure/--no-measure", help="Measure latency; by default if possible.")
    ] = None,
    protect: Annotated[
        list[str] | None, typer.Option("--protect", help="A module to keep, or a pattern. Repeatable.")
    ] = None,
    selector: Annotated[
        str,
        typer.Option("--selector", help="obs, singleton, rowsum, union, energy, l2 or random."),
    ] = "obs",
    compensation: Annotated[str, typer.Option("--compensation", help="ls, delta or none.")] = "ls",
    round_to: Annotated[
        str, typer.Option("--round-to", help="Widths are multiples of it; auto for the device's.")
    ] = "auto",
    attention: Annotated[str, typer.Option("--attention", help="heads, dims or none.")] = "heads",
    samples: Annotated[int, typer.Option("--samples", help="Most calibration samples used.", min=1)] = 256,
    seed: Annotated[int, typer.Option("--seed", help="For selectors that draw.")] = 0,
    export: Annotated[
        str | None, typer.Option("--export", metavar="BUNDLE", help="Also export the result, gated.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Make a model smaller without training, and report what that did."""
    import sdk
    from sdk.cli.arguments import build_model, import_function
    from sdk_runtimes.bundle_writer import check_out
    from sdk_runtimes.require import require_installed

    check_folder(Path(out), overwrite=overwrite)
    if export is not None:
        check_out(Path(export), overwrite=overwrite)
    require_installed("torch", needed_for="edge-sdk prune")
    model, inputs = build_model(source)
    with progress_bar(quiet=quiet) as progress:
        result = sdk.prune(
            model,
            import_function(data),
            sample_inputs=inputs,
            ratio=ratio,
            target_flops=flops,
            target_latency_ms=latency_ms,
            target=target,
            device=device,
            threads=threads,
            measure=measure,
            selector=selector,
            compensation=compensation,
            round_to=parse_round_to(round_to),
            protect=tuple(protect or ()),
            attention=attention,
            samples=samples,
            seed=seed,
            progress=progress,
        )
        save(result, Path(out))
        bundle = None
        if export is not None:
            bundle = sdk.export(
                result.model,
                export,
                target=target,
                sample_inputs=inputs,
                overwrite=overwrite,
                progress=progress,
            )
    if as_json:
        print_json(_as_dict(result, out, bundle))
    else:
        text = f"{result.report}\n\nwritten to {out}: {', '.join(FILES)}"
        stdout().print(text, soft_wrap=True)  # its columns are aligned, and a file gets the same lines
        if bundle is not None:
            stdout().print(str(bundle))


def parse_round_to(text: str) -> int | str:
    """A number, or "auto".

    Raises:
        ArgumentError: neither.
    """
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise ArgumentError(
            f"--round-to {text!r} cannot be read",
            why="it is a number of channels or auto",
            fix="--round-to 8",
        ) from error


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Refuses what could not be written, before minutes are spent.

    Raises:
        OutputExistsError: a file is there, or files of an earlier run and `overwrite` was not given.
    """
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out} is a file", why="a folder is written", fix="name another --out")
    there = [name for name in FILES if (out / name).exists()]
    if there and not overwrite:
        raise OutputExistsError(
            f"{out} holds {', '.join(there)}", why="they are not replaced unasked", fix="pass --overwrite"
        )


def save(result: "PruneResult", out: Path) -> None:
    """Writes the result's files.

    Raises:
        WriteError: the disk is full, or may not be written to.
    """
    from safetensors import SafetensorError

    try:
        result.save(out)
    except (OSError, SafetensorError) as error:  # safetensors wraps what the system says
        raise WriteError(
            f"{out} could not be written", why=str(error), fix="free space, or another --out"
        ) from error


def _as_dict(result: "PruneResult", out: str, bundle: "Bundle | None") -> dict[str, Any]:
    report = result.report
    written = {"path": out, "bundle": None if bundle is None else str(bundle.path)}
    derived = {"flops_left": report.flops_left, "speedup": report.speedup}
    return asdict(report) | derived | {"recipe": dict(result.plan.recipe)} | written
