"""The verb `export`: picks the front door and hands over to the stage."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk_export.gate import Gate
from sdk_runtimes.errors import UnknownChoiceError
from sdk_runtimes.require import require_installed

if TYPE_CHECKING:
    from sdk_export.captured import Source
    from sdk_runtimes.bundle import Bundle

Progress = Callable[[str, int, int], None]


def export(
    model: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    target: str | Sequence[str] = "onnx",
    sample_inputs: Any = None,
    sample_kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    precision: str = "fp32",
    gate: Gate | None = Gate(),  # noqa: B008 - frozen: one instance for all calls is right
    overwrite: bool = False,
    name: str | None = None,
    licence: str | None = None,
    progress: Progress | None = None,
) -> "Bundle":
    """Lowers a model for one or several targets, proves the files right, and puts them into a bundle.

    Args:
        model: an `nn.Module`, a `torch.export.ExportedProgram`, or a path to an `.onnx` or `.pt2` file.
        out: the bundle's folder; `<model name>.bundle` in the working directory by default.
        target: "onnx", "openvino", "coreml", "tensorrt", or several of them.
        sample_inputs: a tensor, a tuple of positional or a dict of keyword arguments of `forward`. Without it
            they come from `model.sample_inputs()`, Hugging Face `dummy_inputs` or timm's `pretrained_cfg`.
        sample_kwargs: keyword arguments beside `sample_inputs`.
        dynamic_shapes: axes without a fixed size: `{"x": {0: ("batch", 1, 8)}}`, or torch.export's form.
        precision: "fp32", "fp16" or "bf16", where the target has it. Inputs and outputs keep their dtypes.
        gate: the quality check; None marks every program unverified.
        overwrite: replace a bundle that is there.
        name: of the program; the model's class name by default.
        licence: of the weights, for the manifest (an SPDX expression).
        progress: called with (stage, done, total).

    Returns:
        The bundle at `out`.

    Raises:
        UnknownChoiceError: an unknown target or precision; lists the known ones.
        OutputExistsError: `out` is there already.
        MissingExtraError: a package for this target is not installed; names the pip line.
        SampleInputsError, WeightsError, TraceError, LoweringError: see the classes.
        QualityError: the shipped bytes do not compute what the model computes. Nothing is left at `out`.
        WriteError: the disk is full or read-only. Nothing half-written is left.
    """
    from sdk_export.targets.table import find_target
    from sdk_runtimes.bundle_writer import check_out

    targets = (target,) if isinstance(target, str) else tuple(target)
    for each in targets:  # before minutes are spent on the rest
        find_target(each, precision)
    if out is not None:
        check_out(Path(out), overwrite=overwrite)
    require_installed("torch", needed_for="sdk.export")
    source = _capture(model, name, sample_inputs, sample_kwargs, dynamic_shapes)
    place = Path(out) if out is not None else Path(f"{source.name}.bundle")

    from sdk_export.build import Order, build_bundle

    order = Order(
        out=place,
        targets=targets,
        precision=precision,
        gate=gate or Gate(enabled=False),
        overwrite=overwrite,
        model=_described(model),
        licence=licence,
        recipe={
            "dynamic_shapes": repr(dict(_ranges(source))),
            "precision": precision,
            "targets": ",".join(targets),
        },
    )
    return build_bundle(source, order, progress or _silent)


def _capture(
    model: Any,
    name: str | None,
    sample_inputs: Any,
    sample_kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> "Source":
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        front_door = _FILE_KINDS.get(path.suffix)
        if front_door is None:
            raise UnknownChoiceError("file type", path.suffix, _FILE_KINDS)
        return front_door(path, name, sample_inputs, sample_kwargs, dynamic_shapes)
    from sdk_export.capture import capture

    return capture(
        model,
        name=name,
        sample_inputs=sample_inputs,
        sample_kwargs=sample_kwargs,
        dynamic_shapes=dynamic_shapes,
    )


def _capture_pt2(
    path: Path, name: str | None, sample_inputs: Any, sample_kwargs: Mapping[str, Any] | None, _dims: Any
) -> "Source":
    from sdk_export.capture import capture
    from sdk_export.pt2_file import load_pt2

    # Its dynamic dims were fixed when it was traced.
    return capture(
        load_pt2(path), name=name or path.stem, sample_inputs=sample_inputs, sample_kwargs=sample_kwargs
    )


def _capture_onnx(
    path: Path, name: str | None, sample_inputs: Any, sample_kwargs: Mapping[str, Any] | None, dims: Any
) -> "Source":
    from sdk_export.onnx_source import capture_onnx

    return capture_onnx(path, name=name, sample_inputs=sample_kwargs or sample_inputs, dynamic_shapes=dims)


_FILE_KINDS: Mapping[str, Callable[..., "Source"]] = {".onnx": _capture_onnx, ".pt2": _capture_pt2}


def _described(model: Any) -> str:
    if isinstance(model, str | os.PathLike):
        return Path(model).name
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _ranges(source: "Source") -> dict[str, tuple[int, int]]:
    return {item.symbol: (item.minimum, item.maximum) for item in source.symbols}


def _silent(_stage: str, _done: int, _total: int) -> None:
    """No progress wanted."""
