import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiny_programs as tiny
from sdk_runtimes.errors import ArgumentError, DeviceError, SessionError, UnknownChoiceError
from sdk_runtimes.isolated import IsolatedProgram
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.sessions import onnxruntime as backend
from sdk_runtimes.specs import ProgramSpec, TensorSpec


def config(settings: onnxruntime.SessionOptions, key: str) -> str:
    return str(settings.get_session_config_entry(key))


@pytest.mark.parametrize(("spin", "told"), [(False, "0"), (True, "1")])
def test_threads_and_spinning_are_the_callers(spin: bool, told: str) -> None:
    settings = backend.session_options(tiny.affine().spec, OpenOptions(threads=3, spin=spin))
    assert settings.intra_op_num_threads == 3
    assert settings.inter_op_num_threads == 1
    assert config(settings, "session.intra_op.allow_spinning") == told


@pytest.mark.parametrize(
    ("weights_bytes", "lean", "disabled"),
    [(backend.PREPACK_MAX_BYTES, False, "0"), (backend.PREPACK_MAX_BYTES + 1, False, "1"), (1, True, "1")],
)
def test_large_weights_are_not_copied_for_speed(weights_bytes: int, lean: bool, disabled: str) -> None:
    spec = replace(tiny.affine().spec, weights_bytes=weights_bytes)
    settings = backend.session_options(spec, OpenOptions(lean=lean))
    assert config(settings, "session.disable_prepacking") == disabled
    assert settings.enable_cpu_mem_arena is not lean


def test_no_threads_is_refused() -> None:
    with pytest.raises(ArgumentError, match="threads is 0"):
        OpenOptions(threads=0)


def test_placement_counts_nodes(tmp_path: Path) -> None:
    program = tiny.affine()
    session = backend.open_session(program.write(tmp_path), tmp_path, "onnxruntime:cpu", OpenOptions())
    assert session.placement.nodes == {"CPUExecutionProvider": 2}  # MatMul and Add were fused
    assert session.placement.fallbacks == ()


def half_program(kind: int, precision: str, opset: int = 20) -> tiny.Tiny:
    """y = relu(x) computed in a half type; MatMul has no such kernel on the CPU."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=kind),
        helper.make_node("MatMul", ["h", "h"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "half", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    base = tiny.affine()
    inputs = (replace(base.spec.inputs[0], shape=(4, 4)),)
    outputs = (replace(base.spec.outputs[0], shape=(4, 4)),)
    spec = replace(base.spec, precision=precision, inputs=inputs, outputs=outputs)
    return tiny.Tiny(spec, model, lambda feeds: {"y": feeds["x"] @ feeds["x"]})


def test_fp16_runs_in_fp32_on_the_cpu_and_says_so(tmp_path: Path) -> None:
    program = half_program(TensorProto.FLOAT16, "fp16")
    session = backend.open_session(program.write(tmp_path), tmp_path, "onnxruntime:cpu", OpenOptions())
    feeds = tiny.random_feeds(program.spec)
    np.testing.assert_allclose(session.run([feeds["x"]])[0], program.truth(feeds)["y"], atol=2e-2)
    assert "fp16 is computed in fp32" in session.placement.fallbacks[0]


def test_bf16_is_refused_on_the_cpu_with_a_way_out(tmp_path: Path) -> None:
    program = half_program(TensorProto.BFLOAT16, "bf16")
    with pytest.raises(DeviceError, match=r"(?s)cannot run in bf16.*target='openvino'"):
        backend.open_session(program.write(tmp_path), tmp_path, "onnxruntime:cpu", OpenOptions())


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    spec = tiny.affine().spec
    (tmp_path / spec.entry).parent.mkdir()
    (tmp_path / spec.entry).write_bytes(b"not a graph")
    with pytest.raises(SessionError, match="ONNX Runtime did not load"):
        backend.open_session(spec, tmp_path, "onnxruntime:cpu", OpenOptions())


@pytest.mark.parametrize(
    "device", ["onnxruntime:tpu", "onnxruntime", "onnxruntime:cuda:first", "openvino:cpu"]
)
def test_unknown_devices_are_refused(tmp_path: Path, device: str) -> None:
    with pytest.raises(UnknownChoiceError, match="device"):
        backend.open_session(tiny.affine().spec, tmp_path, device, OpenOptions())


def test_a_missing_provider_names_its_wheel(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"(?s)has no CUDAExecutionProvider.*pip install onnxruntime-gpu"):
        backend.open_session(tiny.affine().spec, tmp_path, "onnxruntime:cuda", OpenOptions())


class FakeEngine:
    """An InferenceSession that got, or did not get, its provider."""

    def __init__(self, granted: Sequence[str], parts: Sequence[tuple[str, Sequence[str]]] = ()) -> None:
        self._granted, self._parts = granted, parts
        self.falls_back = True

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="y"), SimpleNamespace(name="z")]

    def get_providers(self) -> Sequence[str]:
        return self._granted

    def disable_fallback(self) -> None:
        self.falls_back = False

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(
                ep_name=name, get_nodes=lambda ops=ops: [SimpleNamespace(op_type=op) for op in ops]
            )
            for name, ops in self._parts
        ]


def fake_library(engine: FakeEngine | Exception, *available: str) -> ModuleType:
    """An `onnxruntime` of another build; remembers what it was asked for."""
    library = ModuleType("onnxruntime")
    library.__dict__.update(
        __version__="9",
        asked=[],
        get_available_providers=lambda: [*available, "CPUExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
        ExecutionMode=onnxruntime.ExecutionMode,
    )

    def create(_model: object, _settings: object, providers: list[Any], **_more: object) -> FakeEngine:
        library.asked.append(providers)
        if isinstance(engine, Exception):
            raise engine
        return engine

    library.__dict__["InferenceSession"] = create
    return library


def use(monkeypatch: pytest.MonkeyPatch, library: ModuleType) -> ModuleType:
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    return library


def test_cuda_computes_fp32_without_tf32_and_tells_what_stayed_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = [
        ("CUDAExecutionProvider", ["Conv", "Relu"]),
        ("CPUExecutionProvider", ["Shape", "NonZero", "Shape"]),
    ]
    engine = FakeEngine(["CUDAExecutionProvider", "CPUExecutionProvider"], parts)
    library = use(monkeypatch, fake_library(engine, "CUDAExecutionProvider"))
    session = backend.open_session(tiny.affine().spec, tmp_path, "onnxruntime:cuda:1", OpenOptions())
    (name, options), rest = library.asked[0]
    assert (name, options["use_tf32"], options["device_id"], rest) == (
        "CUDAExecutionProvider",
        "0",
        "1",
        "CPUExecutionProvider",
    )
    assert session.placement.device == "cuda:1"
    assert session.placement.nodes == {"CUDAExecutionProvider": 2, "CPUExecutionProvider": 3}
    assert (
        "3 of 5 nodes run outside CUDAExecutionProvider (2 Shape, 1 NonZero)"
        in session.placement.fallbacks[0]
    )
    assert not engine.falls_back


def test_a_provider_that_onnxruntime_dropped_silently_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, fake_library(FakeEngine(["CPUExecutionProvider"]), "CUDAExecutionProvider"))
    with pytest.raises(DeviceError, match="fell back to"):
        backend.open_session(tiny.affine().spec, tmp_path, "onnxruntime:cuda", OpenOptions())


def test_an_engine_that_does_not_tell_where_nodes_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(FakeEngine, "get_provider_graph_assignment_info")
    use(monkeypatch, fake_library(FakeEngine(["CPUExecutionProvider"])))
    session = backend.open_session(tiny.affine().spec, tmp_path, "onnxruntime:cpu", OpenOptions())
    assert session.placement.nodes == {}


@pytest.mark.parametrize(
    ("unit", "precision", "wanted"),
    [
        ("qnn", "fp32", {"enable_htp_fp16_precision": "0"}),
        ("qnn", "fp16", {"enable_htp_fp16_precision": "1"}),
        ("tensorrt", "fp16", {"trt_fp16_enable": "1", "trt_engine_cache_path": "blobs"}),
        ("coreml", "fp32", {"ModelFormat": "MLProgram", "ModelCacheDirectory": "blobs"}),
        ("openvino", "fp32", {"precision": "FP32", "num_of_threads": "2", "cache_dir": "blobs"}),
        ("directml", "fp32", {"device_id": "0"}),
        ("cpu", "fp32", {}),
    ],
)
def test_precision_is_never_left_to_a_provider(unit: str, precision: str, wanted: dict[str, str]) -> None:
    spec = replace(tiny.affine().spec, precision=precision)
    given = backend.PROVIDERS[unit].options(spec, 0, OpenOptions(threads=2, cache_path=Path("blobs")))
    assert {key: given[key] for key in wanted} == wanted


def test_devices_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    real = {device.id: device for device in backend.devices()}
    assert real["onnxruntime:cpu"].usable
    assert real["onnxruntime:cpu"].name
    assert "onnxruntime-gpu" in real["onnxruntime:cuda"].note

    use(monkeypatch, fake_library(RuntimeError("libcudart.so.12: no such file"), "CUDAExecutionProvider"))
    broken = {device.id: device for device in backend.devices()}["onnxruntime:cuda"]
    assert not broken.usable
    assert "libcudart.so.12" in broken.note

    use(monkeypatch, fake_library(FakeEngine(["CPUExecutionProvider"]), "CUDAExecutionProvider"))
    dropped = {device.id: device for device in backend.devices()}["onnxruntime:cuda"]
    assert not dropped.usable
    assert "driver" in dropped.note

    started = FakeEngine(["CUDAExecutionProvider", "CPUExecutionProvider"])
    use(monkeypatch, fake_library(started, "CUDAExecutionProvider"))
    assert {device.id: device for device in backend.devices()}["onnxruntime:cuda"].usable


def test_the_probe_is_one_relu() -> None:
    model = onnx.load_from_string(backend._PROBE)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Relu"]


def test_opening_is_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    program = tiny.affine()
    with caplog.at_level(logging.DEBUG):
        session = backend.open_session(program.write(tmp_path), tmp_path, "onnxruntime:cpu", OpenOptions())
        session.run(list(tiny.random_feeds(program.spec).values()))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_file_with_other_outputs_is_refused(tmp_path: Path) -> None:
    program = tiny.affine()
    spec = replace(program.spec, outputs=program.spec.outputs[:1])
    program.write(tmp_path)
    with pytest.raises(SessionError, match="has 2 outputs, the manifest names 1"):
        backend.open_session(spec, tmp_path, "onnxruntime:cpu", OpenOptions())


def test_an_fp16_graph_that_crashes_onnxruntime_loads(tmp_path: Path) -> None:
    """Cast to fp16, Transpose, MatMul of rank 3: the NCHWc pass of ONNX Runtime 1.31 dies over it."""
    weight = numpy_helper.from_array(np.ones((4, 3), np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["h"], ["t"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["t", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    borders = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [2, 5, 4]), ("y", [5, 2, 3]))
    ]
    graph = helper.make_graph(nodes, "g", borders[:1], borders[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    spec = ProgramSpec(
        "m",
        "onnx",
        "fp16",
        (TensorSpec("x", "float32", (2, 5, 4)),),
        (TensorSpec("y", "float32", (5, 2, 3)),),
        ("m.onnx",),
    )
    # In a process of its own: without the guard it would take the test run down.
    with IsolatedProgram(spec, tmp_path, "onnxruntime:cpu") as program:
        np.testing.assert_array_equal(program.run({"x": np.ones((2, 5, 4), np.float32)})["y"], 4.0)
