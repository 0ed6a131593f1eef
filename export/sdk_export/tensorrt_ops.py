"""Which ONNX ops, in which dtypes, TensorRT's parser takes: data, no code.

Sources: onnx-tensorrt's `docs/operators.md` (10.1) for TensorRT 10. For 11, every row was tried as a one-node
network on the parser and compiler of TensorRT-RTX 1.7. Where the two disagree, the stricter is written here,
unless `from_11` widens it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sdk_export import tensorrt_rules as rules
from sdk_export.tensorrt_rules import Rule

Types = frozenset[str]

HALF: Types = frozenset({"FLOAT", "FLOAT16"})
FLOATS: Types = HALF | {"BFLOAT16"}
INTS: Types = frozenset({"INT32", "INT64"})
BOOL: Types = frozenset({"BOOL"})
NUMBERS: Types = FLOATS | INTS
ANY: Types = NUMBERS | BOOL
LOW: Types = frozenset({"INT8", "INT4", "FLOAT8E4M3FN"})

ALL_INPUTS = None


@dataclass(frozen=True)
class Op:
    """What TensorRT takes of one ONNX op.

    Attributes:
        types: dtypes (names of `onnx_ir.DataType`) of the data inputs.
        data: which inputs are data; `ALL_INPUTS` for every one.
        rule: what else it asks.
        from_11: dtypes that TensorRT 11 adds.
        since: the first major version that has the op.
    """

    types: Types
    data: tuple[int, ...] | None = (0,)
    rule: Rule | None = None
    from_11: Types = frozenset()
    since: int = 10


def _each(names: str, op: Op) -> dict[str, Op]:
    return dict.fromkeys(names.split(), op)


_ELEMENTWISE = {
    **_each(
        "Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid Hardmax "
        "IsInf IsNaN LeakyRelu Log LogSoftmax Reciprocal Relu Round Selu Sigmoid Sin Sinh Softmax "
        "Softplus Softsign "
        "Sqrt Tan Tanh ThresholdedRelu LRN",
        Op(FLOATS),
    ),
    **_each("Abs Clip Neg Sign", Op(NUMBERS)),
    **_each("HardSwish Mish GlobalLpPool LpNormalization", Op(HALF)),
    **_each("Celu MeanVarianceNormalization", Op(frozenset({"FLOAT"}))),
    "Shrink": Op(HALF | INTS),
    **_each(
        "Add Sub Mul Div Max Min Mod Sum Greater GreaterOrEqual Less LessOrEqual",
        Op(NUMBERS, data=ALL_INPUTS),
    ),
    "Equal": Op(NUMBERS, data=ALL_INPUTS, from_11=BOOL),
    "Mean": Op(FLOATS, data=ALL_INPUTS),
    "Pow": Op(FLOATS, data=ALL_INPUTS, from_11=INTS),
    "PRelu": Op(FLOATS, data=ALL_INPUTS),
    **_each("And Or Xor Not", Op(BOOL, data=ALL_INPUTS)),
    "Where": Op(ANY, data=(1, 2)),
}

_PRODUCTS = {
    **_each("MatMul Gemm", Op(FLOATS, data=(0, 1))),
    "Einsum": Op(FLOATS, data=ALL_INPUTS),
    "Conv": Op(FLOATS, data=(0, 1), rule=rules.spatial_1d_to_3d),
    # The parser takes bf16 too, but TensorRT-RTX 1.7 then fails to compile a U-Net's.
    "ConvTranspose": Op(HALF, data=(0, 1), rule=rules.spatial_1d_to_3d),
    "DeformConv": Op(HALF, data=(0, 1)),
    **_each("GRU LSTM RNN", Op(FLOATS, rule=rules.recurrent)),
}

_POOLS_AND_NORMS = {
    "AveragePool": Op(FLOATS, rule=rules.all_of(rules.spatial_1d_to_3d, rules.no_dilation)),
    "LpPool": Op(FLOATS, rule=rules.all_of(rules.spatial_1d_to_3d, rules.no_dilation)),
    "MaxPool": Op(
        FLOATS, rule=rules.all_of(rules.spatial_1d_to_3d, rules.no_dilation, rules.only_first_output)
    ),
    **_each("GlobalAveragePool GlobalMaxPool", Op(FLOATS)),
    **_each("InstanceNormalization GroupNormalization", Op(FLOATS)),
    "LayerNormalization": Op(FLOATS, rule=rules.only_first_output),
    "BatchNormalization": Op(FLOATS, rule=rules.all_of(rules.inference_mode, rules.only_first_output)),
    "Dropout": Op(FLOATS, rule=rules.inference_mode),
    **_each(
        "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceL1 ReduceSumSquare",
        Op(NUMBERS, rule=rules.constants_at(1)),
    ),
    **_each("ReduceL2 ReduceLogSum ReduceLogSumExp", Op(FLOATS, rule=rules.constants_at(1))),
    "CumSum": Op(FLOATS, rule=rules.constants_at(1), from_11=INTS),
}

_SHAPES = {
    **_each(
        "ConstantOfShape Expand Flatten Gather GatherElements GatherND Identity Reshape Shape Size Split "
        "Tile Transpose Trilu EyeLike",
        Op(ANY),
    ),
    "Concat": Op(ANY, data=ALL_INPUTS),
    **_each("Cast CastLike", Op(ANY | {"UINT8", "INT8"})),
    "Constant": Op(ANY, rule=rules.plain_constant),
    **_each("Squeeze Unsqueeze", Op(ANY, rule=rules.constants_at(1))),
    "Slice": Op(ANY, rule=rules.constants_before_11(3)),
    "Pad": Op(NUMBERS, rule=rules.constants_before_11(3)),
    **_each("DepthToSpace SpaceToDepth ArgMax ArgMin", Op(NUMBERS)),
    "Range": Op(NUMBERS, data=ALL_INPUTS),
    "OneHot": Op(ANY, data=(2,), rule=rules.constants_at(1)),
    "ReverseSequence": Op(ANY),
    "TopK": Op(NUMBERS, rule=rules.topk),
    "ScatterND": Op(NUMBERS, data=(0, 2), rule=rules.no_reduction, from_11=BOOL),
    **_each("Scatter ScatterElements", Op(NUMBERS, data=(0, 2))),
    **_each("Resize Upsample", Op(FLOATS, rule=rules.resize)),
    "GridSample": Op(HALF, data=(0, 1), rule=rules.grid_4d),
    "RoiAlign": Op(HALF, data=(0, 1)),
}

_CONTROL = {
    "If": Op(BOOL, rule=rules.branches),
    "Loop": Op(ANY, data=(), rule=rules.loop),
    "Scan": Op(ANY, data=()),
}

_QUANTIZATION = {
    "QuantizeLinear": Op(FLOATS, rule=rules.symmetric),
    "DequantizeLinear": Op(LOW | {"UINT8", "INT32"}, rule=rules.symmetric),  # the rule has the rest
}

_REFUSED_BY_US = {
    **_each("RandomNormal RandomNormalLike RandomUniform RandomUniformLike", Op(ANY, rule=rules.random)),
    **_each("NonZero NonMaxSuppression", Op(ANY, rule=rules.data_dependent)),
}

_NEW_IN_11 = {
    **_each("Attention RMSNormalization RotaryEmbedding Swish", Op(FLOATS, since=11)),
    "TensorScatter": Op(FLOATS, data=(0, 1), since=11),
    **_each("BlackmanWindow HammingWindow HannWindow", Op(INTS, since=11)),  # 10.4 has them, 10.3 does not
    "STFT": Op(FLOATS, since=11),  # likewise, 10.5
}

OPS: Mapping[str, Op] = MappingProxyType(
    {
        **_ELEMENTWISE,
        **_PRODUCTS,
        **_POOLS_AND_NORMS,
        **_SHAPES,
        **_CONTROL,
        **_QUANTIZATION,
        **_REFUSED_BY_US,
        **_NEW_IN_11,
    }
)
"""Op type of the standard domain -> what TensorRT takes of it. What is not here it does not have."""

INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"),
            "use torch.logical_and, logical_or, logical_xor, logical_not on bools",
        ),
        "BitShift": "multiply by a power of two, or divide and floor",
        "Col2Im": "write F.fold as reshape and permute, or as a transposed convolution",
        **dict.fromkeys(("Compress", "Unique"), "mask instead (torch.where), or select with topk"),
        "CumProd": "exponentiate the cumulative sum of logarithms",
        "AffineGrid": "build the grid with a matrix product of constants",
        **dict.fromkeys(("Multinomial", "Bernoulli"), "sample on the host: noise is an input of the model"),
        **dict.fromkeys(
            ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear"),
            "quantize with QuantizeLinear and DequantizeLinear (QDQ), static and symmetric",
        ),
        **dict.fromkeys(("DFT", "MelWeightMatrix"), "multiply by a constant matrix"),
        **dict.fromkeys(("MaxRoiPool", "MaxUnpool"), "write it with gather and scatter"),
        "Det": "write the determinant out, or compute it on the host",
    }
)
"""Op type -> what to write instead."""

MAX_OPSET: Mapping[int, int] = MappingProxyType({10: 20, 11: 25})
"""TensorRT major version -> the newest opset that its documentation names."""
