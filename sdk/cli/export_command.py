"""`edge-sdk export`."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdk.cli.screen import JsonFlag, QuietFlag, print_json, progress_bar, reports_errors, stdout

if TYPE_CHECKING:
    from sdk_export.gate import Gate

_FILES = (".onnx", ".pt2")


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


@reports_errors
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION | FILE",
            help="A function that returns a model or (model, sample_inputs), importable from here; or an "
            ".onnx or .pt2 file.",
        ),
    ],
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="The bundle's folder; <name>.bundle by default.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="onnx, openvino, coreml, tensorrt. Repeatable, or with commas."),
    ] = None,
    precision: Annotated[str, typer.Option("--precision", "-p", help="fp32, fp16 or bf16.")] = "fp32",
    name: Annotated[str | None, typer.Option("--name", help="What the network is called.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Of the weights; an SPDX name.")] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            "--dynamic",
            metavar="INPUT.AXIS=SYMBOL[:MIN:MAX]",
            help="An axis without a fixed size: x.0=batch:1:8. Repeatable.",
        ),
    ] = None,
    gate: Annotated[Switch, typer.Option("--gate", help="The quality gate.")] = Switch.ON,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance", help="Largest relative RMSE that passes; by precision by default.", min=0.0
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Promote what diverges to a higher precision.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Export a model into a verified bundle."""
    import sdk
    from sdk.cli.arguments import build_model, dynamic_shapes, parse_dynamic, split_names

    axes = [parse_dynamic(text) for text in dynamic or ()]
    model, samples = (source, None) if Path(source).suffix in _FILES else build_model(source)
    with progress_bar(quiet=quiet) as progress:
        bundle = sdk.export(
            model,
            out,
            target=split_names(target or ("onnx",)),
            sample_inputs=samples,
            dynamic_shapes=dynamic_shapes(axes),
            precision=precision,
            gate=_gate(gate, tolerance, repair=repair),
            overwrite=overwrite,
            name=name,
            licence=licence,
            progress=progress,
        )
    if as_json:
        print_json(asdict(bundle.manifest) | {"path": bundle.path, "digest": bundle.digest})
    else:
        stdout().print(str(bundle))


def _gate(switch: Switch, tolerance: float | None, *, repair: bool) -> "Gate":
    from sdk_export.gate import Gate
    from sdk_runtimes.manifest import Tolerance

    held_to = None if tolerance is None else Tolerance(tolerance)
    return Gate(enabled=switch is Switch.ON, tolerance=held_to, repair=repair)
