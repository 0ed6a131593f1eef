"""Target "openvino": OpenVINO IR, `<name>.xml` and `<name>.bin`."""

import tempfile
from pathlib import Path

from sdk_export.captured import Source
from sdk_export.onnx_lowering import build_model, last_values
from sdk_export.passes.isolate_reductions import isolate_reductions
from sdk_export.targets.onnx import save_model
from sdk_export.targets.openvino_convert import convert, convert_apart
from sdk_runtimes.require import require_installed

PRECISIONS = ("fp32", "fp16", "bf16")
"""fp16 stores half-size weights; bf16 is a matter of execution: the weights stay fp32 and the session sets
the inference precision."""

_APART_BYTES = 1 << 30


def write(captured: Source, precision: str, folder: Path) -> tuple[str, ...]:
    """Writes `<name>.xml` and `<name>.bin`.

    Raises:
        LoweringError: an op that OpenVINO's ONNX front end refuses.
        MissingExtraError: openvino is not installed.
    """
    require_installed("openvino", needed_for='target="openvino"')
    result = folder / f"{captured.name}.xml"
    # Beside the result, so that a large model needs room on one disk only.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".onnx-") as scratch:
        model = build_model(captured, "fp32", [isolate_reductions])
        files = [Path(scratch) / file for file in save_model(model, Path(scratch), f"{captured.name}.onnx")]
        is_large = sum(file.stat().st_size for file in files) > _APART_BYTES
        convert_here = convert_apart if is_large else convert
        convert_here(files[0], result, _bounds(captured), compress_to_fp16=precision == "fp16")
    return (result.name, f"{captured.name}.bin")


def _bounds(captured: Source) -> dict[str, list[int | tuple[int, int]]]:
    """Input name -> a size or a range for each axis; empty for a static network."""
    ranges = {item.symbol: (item.minimum, item.maximum) for item in captured.symbols}
    if not ranges:
        return {}
    return {
        spec.name: [dim if isinstance(dim, int) else ranges.get(dim, (0, -1)) for dim in spec.shape]
        for spec in captured.inputs
    }


def module_values(captured: Source, _precision: str) -> dict[str, str]:
    """Module path -> name of its last value in the IR, which keeps the names of the ONNX lowering."""
    return last_values(build_model(captured, "fp32", [isolate_reductions]).graph)
