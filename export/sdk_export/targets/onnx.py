"""Target "onnx": an ONNX file, with its weights beside it when they are large."""

from pathlib import Path

import onnx_ir as ir

from sdk_export.captured import Source
from sdk_export.onnx_lowering import build_model, last_values

PRECISIONS = ("fp32", "fp16")
"""bf16 is missing because ONNX Runtime has no bf16 kernels on CPU (1.31)."""

EXTERNAL_DATA_BYTES = 32 << 20
"""Weights larger than this lie in a file of their own: engines map it instead of copying it, and a protobuf
ends at 2 GB anyway."""


def write(captured: Source, precision: str, folder: Path) -> tuple[str, ...]:
    """Writes `<name>.onnx` and, for large weights, `<name>.onnx.data`.

    Raises:
        LoweringError: an op that ONNX cannot express.
    """
    return save_model(build_model(captured, precision), folder, f"{captured.name}.onnx")


def save_model(model: ir.Model, folder: Path, file: str) -> tuple[str, ...]:
    """Writes a lowered model, streaming its weights; returns the names of the files."""
    _drop_unused_weights(model.graph)
    weights_bytes = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    if weights_bytes <= EXTERNAL_DATA_BYTES:
        ir.save(model, folder / file)
        return (file,)
    ir.save(model, folder / file, external_data=f"{file}.data", size_threshold_bytes=1024)
    return (file, f"{file}.data")


def _drop_unused_weights(graph: ir.Graph) -> None:
    unused = [n for n, v in graph.initializers.items() if not v.uses() and not v.is_graph_output()]
    for name in unused:
        del graph.initializers[name]


def module_values(captured: Source, precision: str) -> dict[str, str]:
    """Module path -> name of its last value in the file."""
    return last_values(build_model(captured, precision).graph)
