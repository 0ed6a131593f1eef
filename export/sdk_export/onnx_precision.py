"""Lowers an fp32 ONNX graph to fp16 or bf16, node by node, with casts at the borders.

A node stays fp32 when its op sums or exponentiates (norms, softmax, reductions: where fp16 overflows and
loses digits), when a constant of it does not fit the low type, when it is a control-flow or recurrent op,
or when its module was promoted by the gate's repair. Inputs and outputs of the graph keep their dtypes.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from sdk_runtimes.errors import UnknownChoiceError

LOW_TYPES: Mapping[str, ir.DataType] = MappingProxyType(
    {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
)

_MAX_FINITE = MappingProxyType({"fp16": 65504.0, "bf16": 3.3895e38})

KEPT_FP32 = frozenset(
    {
        *("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd", "CumSum"),
        *("ReduceLogSum", "ReduceLogSumExp", "Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt"),
        *("Reciprocal", "Sin", "Cos", "LayerNormalization", "GroupNormalization", "InstanceNormalization"),
        *("RMSNormalization", "LpNormalization", "Resize", "Range", "QuantizeLinear", "DequantizeLinear"),
        *("LSTM", "GRU", "RNN", "If", "Loop", "Scan", "RandomNormalLike", "RandomNormal"),
    }
)
"""Ops computed in fp32 whatever the precision."""

MOVES_DATA = frozenset(
    {
        *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Identity", "Expand", "Tile"),
        *("Split", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth", "Pad"),
    }
)
"""Ops that compute nothing: they keep the dtype that their data comes in, instead of rounding it."""


def lower_precision(model: ir.Model, precision: str, keep_fp32: frozenset[str]) -> None:
    """Rewrites `model` in place.

    Args:
        model: fp32, with inferred dtypes.
        precision: a key of `LOW_TYPES`.
        keep_fp32: module paths (everything below them too) or node names that stay fp32.

    Raises:
        UnknownChoiceError: an unknown precision.
    """
    if precision not in LOW_TYPES:
        raise UnknownChoiceError("precision", precision, ("fp32", *LOW_TYPES))
    lowering = _Lowering(model.graph, precision, keep_fp32)
    for node in list(model.graph):
        lowering.visit(node)
    lowering.restore_outputs()


class _Lowering:
    def __init__(self, graph: ir.Graph, precision: str, keep_fp32: frozenset[str]) -> None:
        self._graph = graph
        self._low = LOW_TYPES[precision]
        self._limit = _MAX_FINITE[precision]
        self._keep = keep_fp32
        # (value, dtype) -> the same value in that dtype
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def visit(self, node: ir.Node) -> None:
        low = not self._stays_fp32(node)
        wanted = self._low if low else ir.DataType.FLOAT
        for i, value in enumerate(node.inputs):
            if value is not None and value.dtype in (ir.DataType.FLOAT, self._low) and value.dtype != wanted:
                node.replace_input_with(i, self._as(value, wanted, node))
        if not low:
            return
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", self._low)
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.dtype = self._low

    def restore_outputs(self) -> None:
        for i, value in enumerate(self._graph.outputs):
            if value.dtype == self._low:
                cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
                restored = cast.outputs[0]
                restored.dtype, restored.shape = ir.DataType.FLOAT, value.shape
                value.name, restored.name = f"{value.name}.low", value.name
                self._graph.append(cast)
                self._graph.outputs[i] = restored

    def _stays_fp32(self, node: ir.Node) -> bool:
        path = node.metadata_props.get("module", "")
        promoted = node.name in self._keep or any(
            kept == "" or path == kept or path.startswith(f"{kept}.") for kept in self._keep
        )
        if promoted or node.op_type in KEPT_FP32 or _holds_tensor_attribute(node):
            return True
        data = node.inputs[0] if node.inputs else None
        if node.op_type in MOVES_DATA and data is not None and not data.is_initializer():
            return data.dtype == ir.DataType.FLOAT
        return any(value is not None and self._overflows(value) for value in node.inputs)

    def _overflows(self, value: ir.Value) -> bool:
        constant = value.const_value
        if constant is None or constant.dtype != ir.DataType.FLOAT:
            return False
        array = constant.numpy()
        return bool(array.size and float(np.abs(array).max()) > self._limit)

    def _as(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        key = (value, dtype)
        if key not in self._casts:
            is_weight = value.is_initializer() and value.const_value is not None
            self._casts[key] = (
                self._converted(value, dtype) if is_weight else self._cast(value, dtype, before)
            )
        return self._casts[key]

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        cast = ir.node("Cast", [value], {"to": dtype})
        cast.outputs[0].name = f"{value.name}.{dtype.name.lower()}"
        cast.outputs[0].dtype, cast.outputs[0].shape = dtype, value.shape
        self._graph.insert_before(before, cast)
        return cast.outputs[0]

    def _converted(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        constant = value.const_value
        assert constant is not None
        name = f"{value.name}.{dtype.name.lower()}"
        lazy = ir.LazyTensor(
            # Bound now, computed at write: one converted weight in memory at a time.
            lambda: ir.Tensor(constant.numpy().astype(dtype.numpy()), dtype=dtype, name=name),
            dtype=dtype,
            shape=ir.Shape(constant.numpy().shape),
            name=name,
            cache=False,
        )
        converted = ir.Value(name=name, shape=lazy.shape, type=ir.TensorType(dtype), const_value=lazy)
        self._graph.register_initializer(converted)
        return converted


def _holds_tensor_attribute(node: ir.Node) -> bool:
    """Constant, ConstantOfShape: their dtype is in an attribute; a cast behind them costs nothing."""
    return any(attribute.type == ir.AttributeType.TENSOR for attribute in node.attributes.values())
