"""What TensorRT would refuse is refused at export; what it takes is written in strict types."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto as Type
from onnx import helper, numpy_helper
from onnx_ir.passes.common import ShapeInferencePass

from networks import CASES
from sdk_export.capture import capture
from sdk_export.captured import Captured
from sdk_export.targets import tensorrt
from sdk_export.tensorrt_ops import INSTEAD, OPS
from sdk_export.tensorrt_support import Issue, check, require_support
from sdk_runtimes.errors import LoweringError, UnknownChoiceError

Border = tuple[str, int, Sequence[Any] | None]

IMAGE: Border = ("x", Type.FLOAT, [2, 3, 8, 8])
ROWS: Border = ("x", Type.FLOAT, [2, 6])
OUT: Border = ("o", Type.FLOAT, None)


def _info(border: Border) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(*border)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Sequence[Border] = (ROWS,),
    outputs: Sequence[Border] = (OUT,),
    opset: int = 20,
    **weights: Any,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [_info(i) for i in inputs], [_info(o) for o in outputs], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _one(op: str, inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("o",), **attrs: Any) -> Any:
    return helper.make_node(op, list(inputs), list(outputs), name="culprit", **attrs)


def _branch(name: str, shape: Sequence[int]) -> onnx.GraphProto:
    value = numpy_helper.from_array(np.ones(shape, np.float32))
    constant = helper.make_node("Constant", [], [name], value=value)
    return helper.make_graph([constant], name, [], [helper.make_tensor_value_info(name, Type.FLOAT, shape)])


def _if(then: Sequence[int], other: Sequence[int]) -> onnx.ModelProto:
    node = _one("If", ["b"], then_branch=_branch("t", then), else_branch=_branch("e", other))
    return _model([node], [("b", Type.BOOL, [])])


def _loop(carried: Sequence[int], *, dynamic_trip: bool = False, collects: bool = False) -> onnx.ModelProto:
    grow = "Concat" if carried[0] != 2 else "Add"
    step = helper.make_node(grow, ["s", "s"], ["s2"], **({"axis": 0} if grow == "Concat" else {}))
    keep = [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["s"], ["each"])]
    outs: list[Border] = [("c2", Type.BOOL, []), ("s2", Type.FLOAT, carried)]
    outs += [("each", Type.FLOAT, [2, 6])] if collects else []
    body = helper.make_graph(
        [step, *keep],
        "body",
        [_info(("i", Type.INT64, [])), _info(("c", Type.BOOL, [])), _info(("s", Type.FLOAT, [2, 6]))],
        [_info(out) for out in outs],
    )
    node = _one("Loop", ["n", "go", "x"], ["o", "all"] if collects else ["o"], body=body)
    inputs = [ROWS, ("n", Type.INT64, [])] if dynamic_trip else [ROWS]
    weights = {"go": np.array([True])[0]} | ({} if dynamic_trip else {"n": np.array(3)})
    return _model([node], inputs, **weights)


def _resize(**attrs: Any) -> onnx.ModelProto:
    scales = np.array(attrs.pop("scales", [1, 1, 2, 2]), np.float32)
    return _model([_one("Resize", ["x", "", "s"], **attrs)], [IMAGE], s=scales)


def _topk(k: int, **attrs: Any) -> onnx.ModelProto:
    node = _one("TopK", ["x", "k"], ["o", "i"], **attrs)
    return _model([node], [("x", Type.FLOAT, [2, 6000])], k=np.array([k]))


def _quantized(zero: Any, scale: float = 0.1) -> onnx.ModelProto:
    nodes = [_one("QuantizeLinear", ["x", "s", "z"], ["q"]), _one("DequantizeLinear", ["q", "s", "z"])]
    return _model(nodes, s=np.float32(scale), z=zero)


def _typed(op: str, dtype: int, inputs: int = 1, **attrs: Any) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(inputs)]
    return _model([_one(op, names, **attrs)], [(n, dtype, [2, 6]) for n in names], [("o", dtype, None)])


def _int_cumsum() -> onnx.ModelProto:
    return _model([_one("CumSum", ["x", "a"])], [("x", Type.INT64, [4])], a=np.array(0))


# what, the model, TensorRT's version, part of the reason (empty: accepted)
JUDGED: tuple[tuple[str, Any, int, str], ...] = (
    ("relu", _model([_one("Relu")]), 10, ""),
    ("unknown op", _model([_one("Det")], [("x", Type.FLOAT, [3, 3])]), 10, "does not have this op"),
    ("plugin", _model([_one("Fused", domain="com.microsoft")]), 10, "needs a plugin"),
    ("attention", _model([_one("Swish")], opset=24), 10, "does not have this op"),
    ("attention, 11", _model([_one("Swish")], opset=24), 11, ""),
    ("opset 21", _model([_one("Relu")], opset=21), 10, "reads opsets up to 20"),
    ("opset 21, 11", _model([_one("Relu")], opset=21), 11, ""),
    ("float64", _typed("Add", Type.DOUBLE, 2), 10, "float64 in float32"),
    ("int16 output", _model([_one("Cast", to=Type.INT16)], outputs=[("o", Type.INT16, None)]), 10, "INT16"),
    ("bytes in", _model([_one("Cast", to=Type.FLOAT)], [("x", Type.UINT8, [2])]), 10, ""),
    ("bytes added", _typed("Add", Type.UINT8, 2), 10, "it computes in UINT8"),
    (
        "bytes inside",
        _model([_one("Cast", outputs=["b"], to=Type.UINT8), _one("Cast", ["b"], to=Type.FLOAT)]),
        10,
        "uint8 at inputs and outputs only",
    ),
    ("int matmul", _typed("MatMul", Type.INT64, 2), 10, "it computes in INT64"),
    ("int clip", _typed("Clip", Type.INT64), 10, ""),
    ("bf16 mish", _typed("Mish", Type.BFLOAT16), 11, "it computes in BFLOAT16"),
    (
        "int cumsum",
        _model([_one("CumSum", ["x", "a"])], [("x", Type.INT64, [4])], a=np.array(0)),
        10,
        "INT64",
    ),
    ("int cumsum, 11", _model([_one("CumSum", ["x", "a"])], [("x", Type.INT64, [4])], a=np.array(0)), 11, ""),
    ("rank 9", _model([_one("Relu")], [("x", Type.FLOAT, [1] * 9)]), 10, "at most 8"),
    ("cubic", _resize(mode="cubic"), 10, ""),
    ("cubic over channels", _resize(mode="cubic", scales=[1, 2, 2, 1]), 10, "last two axes"),
    ("linear over channels", _resize(mode="linear", scales=[1, 2, 2, 1]), 10, ""),
    ("antialias", _resize(mode="linear", antialias=1), 10, "antialiases"),
    (
        "crop",
        _resize(mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
        11,
        "half_pixel_symmetric",
    ),
    ("top 3840", _topk(3840), 10, ""),
    ("top 3841", _topk(3841), 11, "more than 3840"),
    ("unsorted", _topk(5, sorted=0), 10, "always sorts"),
    ("unsorted, 11", _topk(5, sorted=0), 11, ""),
    ("if", _if([2, 6], [2, 6]), 10, ""),
    ("if, shapes", _if([2, 6], [2, 5]), 10, "its branches give"),
    ("if, shapes, 11", _if([2, 6], [2, 5]), 11, ""),
    ("if, ranks", _if([2, 6], [12]), 11, "its branches give"),
    ("loop", _loop([2, 6]), 10, ""),
    ("loop grows", _loop([4, 6]), 11, "enters an iteration"),
    ("loop collects", _loop([2, 6], dynamic_trip=True, collects=True), 11, "known at run time only"),
    ("loop collects fixed", _loop([2, 6], collects=True), 10, ""),
    ("int8", _quantized(np.int8(0)), 10, ""),
    ("asymmetric", _quantized(np.int8(3)), 11, "zero point is not 0"),
    ("uint8", _quantized(np.uint8(0)), 10, "quantizes to uint8"),
    (
        "int32 bias",
        _model([_one("DequantizeLinear", ["x", "s"])], [("x", Type.INT32, [4])], s=np.float32(1)),
        11,
        "int32 bias",
    ),
    ("reduce", _model([_one("ReduceSum", ["x", "a"])], a=np.array([1])), 10, ""),
    (
        "reduce along an input",
        _model([_one("ReduceSum", ["x", "a"])], [ROWS, ("a", Type.INT64, [1])]),
        10,
        "computed at run time",
    ),
    ("pool", _model([_one("MaxPool", kernel_shape=[2, 2])], [IMAGE]), 10, ""),
    ("pool indices", _model([_one("MaxPool", outputs=["o", "i"], kernel_shape=[2, 2])], [IMAGE]), 10, "'i'"),
    (
        "dilated pool",
        _model([_one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])], [IMAGE]),
        10,
        "dilations are (2, 2)",
    ),
    ("noise", _model([_one("RandomNormalLike")]), 10, "ignores its seed"),
    ("nonzero", _model([_one("NonZero")], outputs=[("o", Type.INT64, None)]), 11, "depends on the data"),
    (
        "scatter add",
        _model(
            [_one("ScatterND", ["x", "i", "x"], reduction="add")],
            [("x", Type.FLOAT, [2, 6]), ("i", Type.INT64, [2, 1])],
        ),
        11,
        "reduction 'add'",
    ),
)


@pytest.mark.parametrize(
    ("model", "version", "why"), [row[1:] for row in JUDGED], ids=[row[0] for row in JUDGED]
)
def test_a_graph_is_judged_as_the_parser_does(model: onnx.ModelProto, version: int, why: str) -> None:
    issues = check(model, version=version)
    if not why:
        assert issues == ()
    else:
        assert any(why in issue.why for issue in issues), issues
        assert all(issue.fix for issue in issues)


def test_the_table_names_only_ops_that_exist() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert set(OPS) <= known
    assert set(INSTEAD) <= known
    assert not set(OPS) & set(INSTEAD), "an op is either there or replaced"


def test_a_branch_is_searched_too() -> None:
    model = _if([2, 6], [2, 6])
    branch = model.graph.node[0].attribute[0].g
    branch.node.insert(0, helper.make_node("RandomNormal", [], ["unused"], name="deep", shape=[2]))
    assert [issue.node for issue in check(model)] == ["deep"]


def test_checking_leaves_the_model_as_it_was() -> None:
    model = ir.from_proto(_model([_one("Relu", outputs=["m"]), _one("Neg", ["m"])]))
    check(model)
    assert model.graph[0].outputs[0].dtype is None


def test_an_unknown_version_lists_the_known() -> None:
    with pytest.raises(UnknownChoiceError, match="'10', '11'"):
        check(_model([_one("Relu")]), version=8)


def test_the_refusal_names_op_module_and_remedy() -> None:
    model = ir.from_proto(_model([_one("Det")], [("x", Type.FLOAT, [3, 3])]))
    model.graph[0].metadata_props["module"] = "blocks.3.solve"
    with pytest.raises(LoweringError, match=r"Det 'culprit' in module 'blocks\.3\.solve'") as caught:
        require_support(model, "net")
    assert INSTEAD["Det"] in str(caught.value)


def test_a_long_refusal_is_cut() -> None:
    nodes = [helper.make_node("RandomNormalLike", ["x"], [f"r{i}"], name=f"n{i}") for i in range(20)]
    with pytest.raises(LoweringError, match="20 nodes of 'net'") as caught:
        require_support(_model([*nodes, _one("Relu")]), "net")
    assert "and 12 more" in str(caught.value)
    assert "'n19'" not in str(caught.value)


def test_an_issue_reads_as_a_sentence() -> None:
    assert str(Issue("Det", "n", "", "why", "fix")) == "Det 'n': why; fix"


@pytest.fixture(scope="module")
def captured() -> dict[str, Captured]:
    names = ("cnn", "kv_cache", "gru")
    return {name: _capture(name) for name in names}


def _capture(name: str) -> Captured:
    case = CASES[name]
    return capture(
        case.build(),
        name=name,
        sample_inputs=case.sample_inputs,
        sample_kwargs=case.sample_kwargs,
        dynamic_shapes=case.dynamic_shapes,
    )


def _relative_rmse(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - truth) ** 2)) / np.sqrt(np.mean(truth**2)))


@pytest.mark.parametrize("name", ["cnn", "kv_cache", "gru"])
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("fp16", 2e-2)])
def test_what_is_written_computes_what_the_model_computes(
    captured: dict[str, Captured], tmp_path: Path, name: str, precision: str, limit: float
) -> None:
    import onnxruntime

    files = tensorrt.write(captured[name], precision, tmp_path)
    assert files == (f"{name}.trt.onnx",)
    session = onnxruntime.InferenceSession(tmp_path / files[0], providers=["CPUExecutionProvider"])
    truth = captured[name].reference(captured[name].samples)
    found = session.run(list(truth), dict(captured[name].samples))
    for value, wanted in zip(found, truth.values(), strict=True):
        assert value.dtype == wanted.dtype, "the border keeps its dtypes"
        assert _relative_rmse(value, wanted) <= limit


def _dtypes(model: ir.Model) -> dict[str, set[str]]:
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    found: dict[str, set[str]] = {}
    for node in model.graph:
        found.setdefault(node.op_type, set()).update(v.dtype.name for v in node.outputs if v.dtype)
    return found


def test_bf16_is_explicit_and_left_where_tensorrt_lacks_it(captured: dict[str, Captured]) -> None:
    model = tensorrt.build_checked(captured["cnn"], "bf16")
    dtypes = _dtypes(model)
    assert dtypes["Conv"] == {"BFLOAT16"}
    assert dtypes["HardSwish"] == {"FLOAT"}, "TensorRT has no HardSwish in bf16"
    assert {v.dtype.name for v in (*model.graph.inputs, *model.graph.outputs) if v.dtype} == {"FLOAT"}


def test_no_half_precision_transpose_beside_a_gru(captured: dict[str, Captured]) -> None:
    model = tensorrt.build_checked(captured["gru"], "fp16")
    gru = next(node for node in model.graph if node.op_type == "GRU")
    source = gru.inputs[0].producer() if gru.inputs[0] is not None else None
    assert source is not None
    assert source.op_type == "Transpose"
    assert source.inputs[0] is not None
    assert source.inputs[0].is_graph_input()


def test_the_profile_spans_the_ranges_around_the_sample(captured: dict[str, Captured]) -> None:
    profile = json.loads(tensorrt.profile_options(captured["kv_cache"])[tensorrt.PROFILE])
    assert profile["x"] == {"min": [1, 1, 64], "opt": [2, 4, 64], "max": [4, 64, 64]}
    assert profile["past_k"]["min"] == [2, 1, 4, 0, 16]
    assert tensorrt.profile_options(captured["cnn"]) == {}
