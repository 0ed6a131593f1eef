"""Target "openvino": OpenVINO IR, `<name>.xml` and `<name>.bin`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sdk_export.captured import Source
from sdk_export.onnx_lowering import build_model, last_values
from sdk_export.passes.isolate_reductions import isolate_reductions
from sdk_export.targets.onnx import save_model
from sdk_runtimes.errors import LoweringError
from sdk_runtimes.require import require

if TYPE_CHECKING:
    from openvino import Model

PRECISIONS = ("fp32", "fp16", "bf16")
"""fp16 stores half-size weights; bf16 is a matter of execution: the weights stay fp32 and the session sets
the inference precision."""


def write(captured: Source, precision: str, folder: Path) -> tuple[str, ...]:
    """Writes `<name>.xml` and `<name>.bin`.

    Raises:
        LoweringError: an op that OpenVINO's ONNX front end refuses.
        MissingExtraError: openvino is not installed.
    """
    openvino = require("openvino", needed_for='target="openvino"')
    # Beside the result, so that a large model needs room on one disk only.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".onnx-") as scratch:
        (entry, *_) = save_model(
            build_model(captured, "fp32", [isolate_reductions]), Path(scratch), f"{captured.name}.onnx"
        )
        try:
            model = openvino.convert_model(Path(scratch) / entry)
        except Exception as error:
            raise LoweringError(
                f"openvino cannot express {captured.name!r}",
                why=str(error).strip().splitlines()[-1],
                fix="export for another target, or rewrite the op that it names",
            ) from error
        _bound_dims(model, captured)
        openvino.save_model(model, folder / f"{captured.name}.xml", compress_to_fp16=precision == "fp16")
        del model  # holds the scratch file open
    return (f"{captured.name}.xml", f"{captured.name}.bin")


def _bound_dims(model: "Model", captured: Source) -> None:
    """Gives symbolic axes their ranges: plugins plan memory by the upper bound."""
    if not captured.symbols:
        return
    openvino = require("openvino")
    ranges = {item.symbol: (item.minimum, item.maximum) for item in captured.symbols}
    shapes = {}
    for spec in captured.inputs:
        dims = [dim if isinstance(dim, int) else ranges.get(dim, (0, -1)) for dim in spec.shape]
        shapes[spec.name] = openvino.PartialShape(
            [openvino.Dimension(*dim) if isinstance(dim, tuple) else openvino.Dimension(dim) for dim in dims]
        )
    model.reshape(shapes)


def module_values(captured: Source, _precision: str) -> dict[str, str]:
    """Module path -> name of its last value in the IR, which keeps the names of the ONNX lowering."""
    return last_values(build_model(captured, "fp32", [isolate_reductions]).graph)
