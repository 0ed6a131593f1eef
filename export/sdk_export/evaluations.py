"""How the files of each target are run here, while they still lie in the staging folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdk_export.captured import Arrays
from sdk_export.gate import Run
from sdk_runtimes.backends import open_raw
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
    """

    label: str
    run: Run
    tap: Callable[[Arrays, Sequence[str]], Mapping[str, Array]]


@contextmanager
def evaluate_onnx(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """ONNX files on ONNX Runtime's CPU provider."""
    with _session(spec, folder, "onnxruntime:cpu") as run:
        yield Evaluation("onnxruntime:cpu", run, lambda feeds, names: _tap_onnx(spec, folder, feeds, names))


@contextmanager
def evaluate_openvino(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """OpenVINO IR on OpenVINO's CPU plugin."""
    with _session(spec, folder, "openvino:cpu") as run:
        yield Evaluation("openvino:cpu", run, lambda feeds, names: _tap_openvino(spec, folder, feeds, names))


@contextmanager
def evaluate_tensorrt(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """The portable graph on a CPU engine; bf16 on OpenVINO, because ONNX Runtime has no kernels for it."""
    device = "openvino:cpu" if spec.precision == "bf16" else "onnxruntime:cpu"
    with _session(spec, folder, device) as run:
        yield Evaluation(device, run, lambda feeds, names: _tap_onnx(spec, folder, feeds, names))


@contextmanager
def evaluate_coreml(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """A Core ML package in our MIL evaluator."""
    from sdk_export.mil.package import read_package
    from sdk_export.mil.program import operations
    from sdk_export.targets.coreml import replay

    entry = folder / spec.entry

    def tap(feeds: Arrays, names: Sequence[str]) -> Mapping[str, Array]:
        block = read_package(entry).function("main").block
        there = {name for operation in operations(block) for name, _ in operation.outputs}
        # The fp16 conversion of coremltools renames what it touches.
        found = {name: f"{name}_cast_fp16" for name in names if f"{name}_cast_fp16" in there}
        found |= {name: name for name in names if name in there and name not in found}
        results = replay(entry, spec, feeds, taps=set(found.values()))
        return {name: results[renamed] for name, renamed in found.items()}

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


def _tap_onnx(spec: ProgramSpec, folder: Path, feeds: Arrays, names: Sequence[str]) -> dict[str, Array]:
    """Runs the shipped ONNX file with inner values added to its outputs; the weights stay where they are."""
    import onnx
    import onnxruntime

    entry = folder / spec.entry
    model = onnx.load(entry, load_external_data=False)
    there = {name for node in model.graph.node for name in node.output} - {o.name for o in model.graph.output}
    found = [name for name in names if name in there]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in found)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(entry.parent)
    )
    settings.add_session_config_entry("session.disable_prepacking", "1")
    try:
        engine = onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        results = engine.run(found, dict(feeds)) if found else []
    except Exception as error:
        raise SessionError(f"inner values of {spec.entry!r} cannot be read: {error}") from error
    return dict(zip(found, results, strict=True))


def _tap_openvino(spec: ProgramSpec, folder: Path, feeds: Arrays, names: Sequence[str]) -> dict[str, Array]:
    """Runs the shipped IR with inner values added to its outputs."""
    import openvino

    core = openvino.Core()
    model = core.read_model(folder / spec.entry)
    there = {name for op in model.get_ops() for port in op.outputs() for name in port.get_names()}
    found = [name for name in names if name in there]
    hint = {"fp32": "f32", "fp16": "f32", "bf16": "bf16"}[spec.precision]
    try:
        model.add_outputs(found)
        compiled: Any = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        results = compiled(dict(feeds))
        return {name: results[compiled.output(name)] for name in found}
    except Exception as error:
        raise SessionError(f"inner values of {spec.entry!r} cannot be read: {error}") from error
