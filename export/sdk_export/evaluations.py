"""How the files of each target are run here, while they still lie in the staging folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sdk_export.captured import Arrays
from sdk_export.gate import Run
from sdk_runtimes.backends import open_raw
from sdk_runtimes.coreml_io import output_names
from sdk_runtimes.errors import SessionError
from sdk_runtimes.feeds import Array
from sdk_runtimes.isolated import IsolatedProgram
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.session import Session
from sdk_runtimes.specs import ProgramSpec

_ISOLATED_BYTES = 1 << 30
"""Larger programs run in a process of their own: this one holds the model's weights already."""


@dataclass(frozen=True)
class Evaluation:
    """The shipped files, ready to compute.

    Attributes:
        label: what runs them ("onnxruntime:cpu", "mil-evaluator").
        run: the program.
        tap: reads inner values by the names they have in the file.
        strict: the program with every value rounded to the precision that the file says, where `run` may keep
            more (ONNX Runtime's CPU kernels compute fp16 graphs in fp32, and drop the casts in between).
    """

    label: str
    run: Run
    tap: Callable[[Arrays, Sequence[str]], Mapping[str, Array]]
    strict: Run | None = None


@contextmanager
def evaluate_onnx(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """ONNX files on ONNX Runtime's CPU provider."""
    with _session(spec, folder, "onnxruntime:cpu") as run:
        yield _of_onnx("onnxruntime:cpu", run, spec, folder)


@contextmanager
def evaluate_openvino(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """OpenVINO IR on OpenVINO's CPU plugin."""
    with _session(spec, folder, "openvino:cpu") as run:
        yield Evaluation("openvino:cpu", run, partial(_tap_openvino, spec, folder))


@contextmanager
def evaluate_tensorrt(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """The portable graph on a CPU engine; bf16 on OpenVINO, because ONNX Runtime has no kernels for it."""
    device = "openvino:cpu" if spec.precision == "bf16" else "onnxruntime:cpu"
    with _session(spec, folder, device) as run:
        evaluation = _of_onnx(device, run, spec, folder)
        if spec.precision == "bf16":
            evaluation = replace(evaluation, tap=partial(_tap_openvino, spec, folder))
        yield evaluation


@contextmanager
def evaluate_coreml(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """A Core ML package in our MIL evaluator."""
    from sdk_export.mil.package import read_package
    from sdk_export.mil.program import operations
    from sdk_export.targets.coreml import replay

    entry = folder / spec.entry
    given = [item.name for item in spec.outputs]
    border = dict(zip(output_names([item.name for item in spec.inputs], given), given, strict=True))

    def tap(feeds: Arrays, names: Sequence[str]) -> Mapping[str, Array]:
        block = read_package(entry).function("main").block
        there = {name for operation in operations(block) for name, _ in operation.outputs}
        # The fp16 conversion of coremltools renames what it touches.
        found = {name: f"{name}_cast_fp16" for name in names if f"{name}_cast_fp16" in there}
        found |= {name: name for name in names if name in there and name not in found}
        results = replay(entry, spec, feeds, taps=set(found.values()) - set(border))
        return {name: results[border.get(renamed, renamed)] for name, renamed in found.items()}

    yield Evaluation("mil-evaluator", lambda feeds: replay(entry, spec, feeds), tap)


@contextmanager
def _session(spec: ProgramSpec, folder: Path, device: str) -> Iterator[Run]:
    if spec.weights_bytes > _ISOLATED_BYTES:
        with IsolatedProgram(spec, folder, device) as program:
            yield program.run
        return
    raw = open_raw(spec, folder, device, OpenOptions())
    with closing(Session(spec, raw)) as session:
        yield session.run


def _of_onnx(label: str, run: Run, spec: ProgramSpec, folder: Path) -> Evaluation:
    def strict(feeds: Arrays) -> Mapping[str, Array]:
        results = _tap_onnx(spec, folder, feeds, ())
        return dict(zip([item.name for item in spec.outputs], results.values(), strict=True))

    tap = partial(_tap_onnx, spec, folder)
    return Evaluation(label, run, tap, strict if spec.precision == "fp16" else None)


def _tap_onnx(spec: ProgramSpec, folder: Path, feeds: Arrays, names: Sequence[str]) -> dict[str, Array]:
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


def _tap_openvino(spec: ProgramSpec, folder: Path, feeds: Arrays, names: Sequence[str]) -> dict[str, Array]:
    """Runs the shipped IR with inner values added to its outputs."""
    import openvino

    core = openvino.Core()
    model = core.read_model(folder / spec.entry)
    there = {name for op in model.get_ops() for port in op.outputs() for name in port.get_names()}
    found = [name for name in names if name in there]
    hint = {"fp32": "f32", "fp16": "f32", "bf16": "bf16"}[spec.precision]
    try:
        results_there = {name for port in model.outputs for name in port.get_names()}
        model.add_outputs([name for name in found if name not in results_there])
        compiled: Any = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        results = compiled(dict(feeds))
        return {name: results[compiled.output(name)] for name in found}
    except Exception as error:
        raise SessionError(f"inner values of {spec.entry!r} cannot be read: {error}") from error
