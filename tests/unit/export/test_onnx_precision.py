"""Lowering to fp16 and bf16: which nodes stay fp32, and what the borders keep."""

import numpy as np
import onnx_ir as ir
import pytest

from sdk_export.onnx_precision import KEPT_FP32, LOW_TYPES, MOVES_DATA, lower_precision
from sdk_runtimes.errors import UnknownChoiceError

FP32, FP16, INT64 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT64


class Chain:
    """A graph that is one node after the other."""

    def __init__(self, dtype: ir.DataType = FP32) -> None:
        self.x = ir.Value(name="x", type=ir.TensorType(dtype), shape=ir.Shape([2, 4]))
        self.last, self.nodes, self.constants = self.x, [], []

    def constant(self, values: object, name: str | None = None) -> ir.Value:
        array = np.asarray(values)
        name = name or f"c{len(self.constants)}"
        tensor = ir.Tensor(array, name=name)
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.constants.append(value)
        return value

    def then(self, op: str, *others: ir.Value, module: str = "", dtype: ir.DataType = FP32, **attributes):
        node = ir.node(op, [self.last, *others], attributes, name=f"n{len(self.nodes)}")
        node.outputs[0].name = f"{op.lower()}.{len(self.nodes)}"
        node.outputs[0].type = ir.TensorType(dtype)
        node.outputs[0].shape = ir.Shape([2, 4])
        if module:
            node.metadata_props["module"] = module
        self.nodes.append(node)
        self.last = node.outputs[0]
        return self

    def model(self) -> ir.Model:
        self.last.name = "output"
        graph = ir.Graph(
            [self.x], [self.last], nodes=self.nodes, initializers=self.constants, opset_imports={"": 20}
        )
        return ir.Model(graph, ir_version=10)


def dtypes(model: ir.Model) -> dict[str, ir.DataType]:
    """Op -> dtype of its result; casts left out."""
    return {node.op_type: node.outputs[0].dtype for node in model.graph if node.op_type != "Cast"}


def lowered(chain: Chain, precision: str = "fp16", keep: tuple[str, ...] = ()) -> ir.Model:
    model = chain.model()
    lower_precision(model, precision, frozenset(keep))
    return model


@pytest.mark.parametrize("precision", LOW_TYPES)
def test_borders_keep_name_and_dtype_and_inside_is_low(precision):
    model = lowered(Chain().then("Relu").then("Neg"), precision)
    assert [(v.name, v.dtype) for v in (*model.graph.inputs, *model.graph.outputs)] == [
        ("x", FP32),
        ("output", FP32),
    ]
    assert dtypes(model) == {"Relu": LOW_TYPES[precision], "Neg": LOW_TYPES[precision]}
    assert [node.op_type for node in model.graph] == ["Cast", "Relu", "Neg", "Cast"]


@pytest.mark.parametrize("precision", ["fp32", "int8", "", "FP16"])
def test_an_unknown_precision_lists_the_known_ones(precision):
    with pytest.raises(UnknownChoiceError) as caught:
        lowered(Chain().then("Relu"), precision)
    assert caught.value.known == ("fp32", "fp16", "bf16")


@pytest.mark.parametrize("op", sorted(KEPT_FP32 & {"Softmax", "LayerNormalization", "ReduceSum", "Exp"}))
def test_sums_and_exponentials_stay_fp32_between_low_neighbours(op):
    assert dtypes(lowered(Chain().then("Relu").then(op).then("Neg"))) == {"Relu": FP16, op: FP32, "Neg": FP16}


def test_weights_are_converted_and_those_beyond_fp16_keep_their_node_in_fp32():
    small, large = np.full((4, 4), 65504.0, np.float32), np.full((4,), -70000.0, np.float32)
    chain = Chain()
    model = lowered(chain.then("MatMul", chain.constant(small, "w")).then("Add", chain.constant(large, "b")))
    assert dtypes(model) == {"MatMul": FP16, "Add": FP32}
    assert model.graph.initializers["w.float16"].const_value.numpy().dtype == np.float16
    np.testing.assert_array_equal(model.graph.initializers["w.float16"].const_value.numpy(), small)
    assert "b.float16" not in model.graph.initializers


def test_bf16_reaches_as_far_as_fp32():
    chain = Chain()
    model = lowered(chain.then("Add", chain.constant(np.full(4, -70000.0, np.float32))), "bf16")
    assert dtypes(model) == {"Add": ir.DataType.BFLOAT16}


@pytest.mark.parametrize("op", sorted(MOVES_DATA & {"Transpose", "Identity", "Flatten", "Squeeze"}))
def test_what_moves_data_follows_the_dtype_it_comes_in(op):
    assert dtypes(lowered(Chain().then("Relu").then(op)))[op] == FP16
    assert dtypes(lowered(Chain().then("Softmax").then(op)))[op] == FP32


def test_a_table_that_is_gathered_from_is_converted():
    chain = Chain(INT64)
    table = chain.constant(np.ones((8, 4), np.float32), "table")
    node = ir.node("Gather", [table, chain.x], name="n0")
    node.outputs[0].name, node.outputs[0].type = "rows", ir.TensorType(FP32)
    node.outputs[0].shape = ir.Shape([2, 4, 4])
    chain.nodes.append(node)
    chain.last = node.outputs[0]
    model = lowered(chain)
    assert dtypes(model) == {"Gather": FP16}
    assert model.graph.inputs[0].dtype == INT64


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (("block.1",), {"Neg"}),
        (("block",), {"Relu", "Neg"}),
        (("bloc",), set()),
        (("block.1.deep",), set()),
        (("",), {"Relu", "Neg", "Abs"}),
        (("n2",), {"Abs"}),
    ],
)
def test_promoted_modules_stay_fp32_with_all_below_them(keep, kept):
    chain = Chain().then("Relu", module="block.0").then("Neg", module="block.1").then("Abs", module="blocks")
    assert {op for op, dtype in dtypes(lowered(chain, keep=keep)).items() if dtype == FP32} == kept


def test_a_cast_to_float_becomes_a_cast_to_the_low_type():
    chain = Chain(INT64).then("Cast", to=int(FP32)).then("Relu")
    model = lowered(chain)
    casts = [node for node in model.graph if node.op_type == "Cast"]
    assert [node.attributes["to"].as_int() for node in casts] == [FP16, FP32]  # in and out
    assert dtypes(model) == {"Relu": FP16}


def test_integers_stay_integers():
    chain = Chain(INT64)
    model = lowered(chain.then("Add", chain.constant(np.arange(4)), dtype=INT64))
    assert dtypes(model) == {"Add": INT64}
    assert len(model.graph) == 1


def test_a_value_is_cast_once_for_all_that_read_it():
    chain = Chain().then("Relu")
    (relu,) = chain.nodes
    model = lowered(chain.then("Softmax").then("Add", relu.outputs[0]).then("Mul", relu.outputs[0]))
    of_relu = [n for n in model.graph if n.op_type == "Cast" and n.inputs[0] is relu.outputs[0]]
    assert len(of_relu) == 1
