"""ONNX file to OpenVINO IR; also a program of its own, so that large models are converted in another process.

The model is read, not run through `openvino.convert_model`, which folds transposes into copies of all
weights: plugins do that when they compile, for the device that they compile for.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdk_runtimes.errors import LoweringError
from sdk_runtimes.require import require

if TYPE_CHECKING:
    from openvino import Model

Bounds = Sequence[int | tuple[int, int]]
"""One entry an axis: a size, or (minimum, maximum); -1 stands for no maximum."""


def convert(source: Path, result: Path, shapes: Mapping[str, Bounds], *, compress_to_fp16: bool) -> None:
    """Writes `result` (.xml) and the .bin beside it.

    Args:
        source: an ONNX file.
        result: where the IR goes.
        shapes: inputs whose symbolic axes get ranges: plugins plan memory by the upper bound.
        compress_to_fp16: store the weights in half the size.

    Raises:
        LoweringError: an op that OpenVINO's ONNX front end refuses.
    """
    openvino = require("openvino", needed_for='target="openvino"')
    try:
        model = openvino.Core().read_model(source)
        if shapes:
            model.reshape({name: _partial_shape(bounds) for name, bounds in shapes.items()})
        _settle_names(model)
        openvino.save_model(model, result, compress_to_fp16=compress_to_fp16)
    except Exception as error:
        raise LoweringError(
            f"openvino cannot express {source.stem!r}",
            why=_last_line(str(error)),
            fix="export for another target, or rewrite the op that it names",
        ) from error


def convert_apart(
    source: Path, result: Path, shapes: Mapping[str, Bounds], *, compress_to_fp16: bool
) -> None:
    """As `convert`, in another process: this one holds the weights already.

    Raises:
        LoweringError: as `convert`.
    """
    order = {"source": str(source), "result": str(result), "shapes": shapes, "fp16": compress_to_fp16}
    child = subprocess.run(
        [sys.executable, "-P", "-m", "sdk_export.targets.openvino_convert"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise LoweringError(
            f"openvino cannot express {source.stem!r}",
            why=_last_line(child.stderr) or f"its process died with status {child.returncode}",
            fix="export for another target, or with more free memory",
        )


def _settle_names(model: "Model") -> None:
    """Numbers anew what OpenVINO named by itself, so that the same network gives the same bytes.

    Its counter runs through the process, this one through the model.
    """
    for number, operation in enumerate(model.get_ordered_ops()):
        kind = operation.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", operation.get_friendly_name()):
            operation.set_friendly_name(f"{kind}_{number}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _partial_shape(bounds: Bounds) -> object:
    openvino = require("openvino")
    dims = [
        openvino.Dimension(*each) if isinstance(each, Sequence) else openvino.Dimension(each)
        for each in bounds
    ]
    return openvino.PartialShape(dims)


if __name__ == "__main__":
    _order = json.load(sys.stdin)
    convert(Path(_order["source"]), Path(_order["result"]), _order["shapes"], compress_to_fp16=_order["fp16"])
