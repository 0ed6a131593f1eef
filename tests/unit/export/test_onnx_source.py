"""A foreign ONNX file as a source."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sdk
from sdk_export.draws import draw_feeds
from sdk_export.onnx_source import capture_onnx
from sdk_runtimes.errors import ArgumentError, LoweringError, SampleInputsError, SdkError, UnsafeBundleError
from sdk_runtimes.specs import SymbolRange

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 7 - 0.8


def write(path: Path, inputs, nodes, outputs, initializers=()) -> Path:
    """inputs and outputs: (name, element type, shape) each."""
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(array, name) for name, array in initializers],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return write(
        tmp_path / "foreign.onnx",
        [("pixels", TensorProto.FLOAT, ["N", 4])],
        [helper.make_node("MatMul", ["pixels", "w"], ["y"]), helper.make_node("Relu", ["y"], ["scores"])],
        [("scores", TensorProto.FLOAT, ["N", 3])],
        [("w", WEIGHT)],
    )


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    return write(
        tmp_path / "text.onnx",
        [("ids", TensorProto.INT64, ["N"])],
        [helper.make_node("Gather", ["w", "ids"], ["rows"])],
        [("rows", TensorProto.FLOAT, ["N", 3])],
        [("w", WEIGHT)],
    )


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_file_is_exported_and_right(linear, tmp_path, target):
    bundle = sdk.export(linear, tmp_path / "out", target=target)
    assert bundle.program().name == "foreign"
    assert bundle.quality(bundle.program()).verdict == "passed"
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    with sdk.load(tmp_path / "out") as session:
        got = session.run({"pixels": x})
    np.testing.assert_allclose(got["scores"], np.maximum(x @ WEIGHT, 0), rtol=1e-5, atol=1e-6)


def test_core_ml_is_not_made_from_it(linear, tmp_path):
    with pytest.raises(LoweringError) as caught:
        sdk.export(linear, tmp_path / "out", target="coreml")
    assert caught.value.why
    assert "nn.Module" in caught.value.fix
    assert not (tmp_path / "out").exists()


def test_float_inputs_are_drawn(linear):
    captured = capture_onnx(linear)
    assert captured.samples["pixels"].shape == (1, 4)
    assert captured.samples["pixels"].std() > 0
    assert captured.symbols == (SymbolRange("N", 1, 1024),)


def test_integer_inputs_need_a_sample(embedding):
    with pytest.raises(SampleInputsError) as caught:
        capture_onnx(embedding)
    assert "ids: int64" in caught.value.what
    assert caught.value.why
    assert "sample_inputs={'ids': array" in caught.value.fix


@pytest.mark.parametrize("form", [dict, tuple, list, None])
def test_samples_come_by_name_or_in_order(embedding, form):
    ids = np.array([0, 3, 1])
    given = ids if form is None else {"ids": ids} if form is dict else form([ids])
    captured = capture_onnx(embedding, sample_inputs=given)
    np.testing.assert_array_equal(captured.samples["ids"], ids)
    np.testing.assert_array_equal(captured.reference(captured.samples)["rows"], WEIGHT[ids])


@pytest.mark.parametrize(
    "given",
    [{"pixel": np.zeros((1, 4), np.float32)}, np.zeros((1, 5), np.float32), np.zeros((1, 4)), ()],
    ids=["name", "shape", "dtype", "none"],
)
def test_samples_that_do_not_fit_are_refused(linear, given):
    with pytest.raises(SampleInputsError, match="do not fit") as caught:
        capture_onnx(linear, sample_inputs=given)
    assert caught.value.why


def test_samples_on_which_the_file_fails_are_told(embedding):
    captured = capture_onnx(embedding, sample_inputs=np.array([99]))
    with pytest.raises(SampleInputsError, match=r"text\.onnx fails"):
        captured.reference(captured.samples)


def test_ranges_of_its_symbols(linear):
    captured = capture_onnx(linear, dynamic_shapes={"pixels": {0: ("rows", 2, 8)}})
    assert captured.symbols == (SymbolRange("N", 2, 8),)
    assert captured.samples["pixels"].shape == (2, 4)


@pytest.mark.parametrize(
    "given", [{"pixels": {1: ("n", 1, 8)}}, {"other": {0: ("n", 1, 8)}}, {"pixels": {7: ("n", 1, 8)}}]
)
def test_ranges_of_what_is_not_dynamic_are_refused(linear, given):
    with pytest.raises(ArgumentError, match="not dynamic") as caught:
        capture_onnx(linear, dynamic_shapes=given)
    assert "pixels" in caught.value.why


@pytest.mark.parametrize("given", [{"pixels": {0: ("n", 8, 1)}}, {"pixels": {0: 8}}, {"pixels": 3}, 3])
def test_ranges_that_cannot_be_read_are_refused(linear, given):
    with pytest.raises(ArgumentError) as caught:
        capture_onnx(linear, dynamic_shapes=given)
    assert caught.value.why


def test_the_name_of_an_axis_is_never_evaluated(tmp_path):
    mark = tmp_path / "exploded"
    evil = f"__import__('os').mkdir('{mark}')"
    path = write(
        tmp_path / "evil.onnx",
        [("x", TensorProto.FLOAT, [evil, 4])],
        [helper.make_node("Relu", ["x"], ["y"])],
        [("y", TensorProto.FLOAT, [evil, 4])],
    )
    captured = capture_onnx(path)
    list(draw_feeds(captured, ("normal",), 0))
    sdk.export(path, tmp_path / "out")
    assert not mark.exists()
    (symbol,) = captured.symbols
    assert symbol.symbol.isidentifier()
    assert captured.outputs[0].shape == (symbol.symbol, 4)


def test_an_axis_without_a_name_gets_one(tmp_path):
    path = write(
        tmp_path / "net.onnx",
        [("input.1", TensorProto.FLOAT, [None, 4])],
        [helper.make_node("Relu", ["input.1"], ["y"])],
        [("y", TensorProto.FLOAT, [None, 4])],
    )
    bundle = sdk.export(path, tmp_path / "out")
    with sdk.load(bundle.path) as session:
        got = session.run({"input.1": -np.ones((3, 4), np.float32)})
    np.testing.assert_array_equal(got["y"], np.zeros((3, 4), np.float32))


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="there is no file"):
        capture_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("data", [b"", b"not onnx at all", b"\x08\x09"])
def test_what_is_no_onnx_is_one_of_our_errors(tmp_path, data):
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(SdkError):
        capture_onnx(tmp_path / "net.onnx")


def test_weights_outside_its_folder_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(48))
    folder = tmp_path / "in"
    folder.mkdir()
    path = write(
        folder / "net.onnx",
        [("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("y", TensorProto.FLOAT, [1, 3])],
        [("w", WEIGHT)],
    )
    model = onnx.load(path)
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeBundleError):
        capture_onnx(path)


def test_a_dtype_that_does_not_cross_the_border_is_refused(tmp_path):
    path = write(
        tmp_path / "net.onnx",
        [("x", TensorProto.BFLOAT16, [4])],
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        [("y", TensorProto.FLOAT, [4])],
    )
    with pytest.raises(ArgumentError, match="'x' is tensor"):
        capture_onnx(path)
