"""Inner values of shipped files, as the files compute them: what the gate follows a divergence along."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sdk_export.captured import Arrays
from sdk_runtimes.errors import SessionError
from sdk_runtimes.feeds import Array
from sdk_runtimes.require import require
from sdk_runtimes.specs import ProgramSpec

_FP16_MAX = 65504.0
_MASK = 1e30  # beyond this it is a mask's "minus infinity", which fp16 keeps as one


def tap_onnx(spec: ProgramSpec, folder: Path, feeds: Arrays, names: Sequence[str]) -> dict[str, Array]:
    """Runs the shipped ONNX file with inner values added to its outputs; the weights stay where they are.

    Returns:
        The file's outputs and, of `names`, those that it has.
    """
    import onnx

    entry = folder / spec.entry
    model = onnx.load(entry, load_external_data=False)
    outputs = [item.name for item in model.graph.output]
    there = {name for node in model.graph.node for name in node.output}
    found = [name for name in dict.fromkeys(names) if name in there and name not in outputs]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in found)
    if spec.precision == "fp16":
        _keep_roundings(model.graph)
    try:
        engine = _engine(model, entry.parent)
        results = engine.run([*outputs, *found], dict(feeds))
    except Exception as error:
        raise SessionError(f"inner values of {spec.entry!r} cannot be read: {error}") from error
    return dict(zip([*outputs, *found], results, strict=True))


def _keep_roundings(graph: Any) -> None:
    """Puts two Identities behind every value of an `onnx.GraphProto`.

    ONNX Runtime computes an fp16 op without a kernel as `Cast(fp32) -> op -> Cast(fp16)` and removes pairs of
    such casts; with something between them they are no pair. A single fp16 node among such ops it also turns
    into fp32, two in a row it leaves alone.
    """
    import onnx

    nodes = []
    for node in graph.node:
        names = [name for name in node.output if name]
        for i, name in enumerate(node.output):
            node.output[i] = f"{name}#exact" if name else name
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        for name in names:
            nodes.append(onnx.helper.make_node("Identity", [f"{name}#exact"], [f"{name}#rounded"]))
            nodes.append(onnx.helper.make_node("Identity", [f"{name}#rounded"], [name]))
    del graph.node[:]
    graph.node.extend(nodes)


def _engine(model: Any, weights: Path) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    settings.add_session_config_entry("session.disable_prepacking", "1")
    # Optimised, the Identities would go again.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


def tap_openvino(
    spec: ProgramSpec, folder: Path, feeds: Arrays, names: Sequence[str] | None
) -> dict[str, Array]:
    """Runs the shipped IR with inner values added to its outputs.

    A CPU without fp16 computes fp16 programs in fp32, so values that fp16 cannot hold become infinite here.

    Args:
        spec: the program.
        folder: where its files are.
        feeds: arrays by input name.
        names: the inner values wanted; None for all.
    """
    openvino = require("openvino", needed_for="reading inner values")
    core = openvino.Core()
    model = core.read_model(folder / spec.entry)
    there = _value_names(model)
    found = [name for name in (there if names is None else names) if name in there]
    hint = {"fp32": "f32", "fp16": "f32", "bf16": "bf16"}[spec.precision]
    try:
        results_there = {name for port in model.outputs for name in port.get_names()}
        model.add_outputs([name for name in found if name not in results_there])
        compiled: Any = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        results = compiled(dict(feeds))
    except Exception as error:
        raise SessionError(f"inner values of {spec.entry!r} cannot be read: {error}") from error
    values = {name: results[compiled.output(name)] for name in found}
    return (
        {name: _as_fp16_holds(value) for name, value in values.items()}
        if spec.precision == "fp16"
        else values
    )


def overflows_openvino(spec: ProgramSpec, folder: Path, feeds: Arrays) -> bool:
    """Whether a value inside an fp16 program leaves the range of fp16, where this CPU computes in fp32."""
    values = tap_openvino(replace(spec, precision="fp32"), folder, feeds, None)
    return any(value.dtype.kind == "f" and bool(_beyond(value).any()) for value in values.values())


def _value_names(model: Any) -> dict[str, None]:
    """One name of each value that an op (not a constant) makes."""
    named = (
        sorted(port.get_names())[:1]
        for op in model.get_ops()
        if op.get_type_name() not in ("Constant", "Result")
        for port in op.outputs()
    )
    return dict.fromkeys(name for names in named for name in names)


def _beyond(value: Array) -> Any:
    size = np.abs(value)
    return (size > _FP16_MAX) & (size < _MASK)


def _as_fp16_holds(value: Array) -> Array:
    return np.where(_beyond(value), np.inf, value).astype(value.dtype) if value.dtype.kind == "f" else value
