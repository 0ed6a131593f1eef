"""`edge-sdk forget`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sdk.cli.screen import JsonFlag, QuietFlag, print_json, progress_bar, reports_errors, stdout


@reports_errors
def forget(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="A function that returns a trained classifier, importable from here.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="MODULE:FUNCTION",
            help="A function that returns batches (inputs, labels) of all classes.",
        ),
    ],
    classes: Annotated[list[int], typer.Option("--class", help="A class to forget. Repeatable.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The .safetensors file for the edited weights.")],
    method: Annotated[str, typer.Option("--method", "-m", help="ridge or fidelity.")] = "ridge",
    strength: Annotated[
        float | None,
        typer.Option("--strength", help="Ridge: weight of the forgotten; fidelity: share of kernels."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="A layer to edit; the last ones by default. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the split into fitted and held-out samples.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Suppress classes of a classifier, and report what is left of them."""
    from sdk.cli.arguments import build_model, import_function
    from sdk.forgetting import forget as forget_classes
    from sdk.weight_files import check_weights_out, write_weights
    from sdk_runtimes.require import require_installed

    check_weights_out(Path(out), overwrite=overwrite)
    require_installed("torch", needed_for="edge-sdk forget")
    from sdk_pruning.forgetting.labelled import split_by_class

    model, _ = build_model(source)
    unwanted, kept = split_by_class(import_function(data)(), classes)
    with progress_bar(quiet=quiet) as progress:
        result = forget_classes(
            model,
            (unwanted.inputs, unwanted.labels),
            (kept.inputs, kept.labels),
            method=method,
            strength=strength,
            layers=layer,
            seed=seed,
            progress=progress,
        )
    write_weights(Path(out), result.model)
    if as_json:
        print_json(asdict(result.report) | {"path": out})
    else:
        stdout().print(f"{result.report}\nweights: {out}")
