"""What TensorRT's ONNX parser asks of a node beyond op and dtype: one small predicate a restriction.

A rule gets the node and TensorRT's major version and answers `(why, fix)`, or None if the node is fine.
Facts are from onnx-tensorrt's `docs/operators.md` and `onnxOpCheckers.cpp` (10.1) and from building
one-node networks with the parser and compiler of TensorRT-RTX 1.7 (whose API level is 11).
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

Finding = tuple[str, str]
Rule = Callable[["ir.Node", int], Finding | None]

TOPK_MAXIMUM = 3840  # ITopKLayer's bound on k, in 10 and in 11
MAX_RANK = 8  # nvinfer1::Dims::MAX_DIMS

_RESIZE_TRANSFORMS = frozenset(
    {"align_corners", "tf_half_pixel_for_nn", "pytorch_half_pixel", "half_pixel", "asymmetric"}
)
_RNN_ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}


def _value(node: "ir.Node", index: int) -> "ir.Value | None":
    return node.inputs[index] if index < len(node.inputs) else None


def _int(node: "ir.Node", name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _text(node: "ir.Node", name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def _rank(value: "ir.Value | None") -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def is_build_constant(value: "ir.Value | None") -> bool:
    """Whether a value is known when the engine is built: weights, and what is computed from them alone."""
    if value is None or value.const_value is not None:
        return True
    producer = value.producer()
    return producer is not None and all(is_build_constant(item) for item in producer.inputs)


def constants_at(*indices: int) -> Rule:
    """Inputs that must be known when the engine is built."""

    def rule(node: "ir.Node", _version: int) -> Finding | None:
        wrong = [i for i in indices if not is_build_constant(_value(node, i))]
        if not wrong:
            return None
        return (
            f"input {wrong[0]} is computed at run time, TensorRT wants it when it builds the engine",
            "make it a Python int or a buffer of the model, not something computed from an input",
        )

    return rule


def constants_before_11(*indices: int) -> Rule:
    """As `constants_at`, lifted in TensorRT 11."""
    rule = constants_at(*indices)
    return lambda node, version: rule(node, version) if version < 11 else None


def only_first_output(node: "ir.Node", _version: int) -> Finding | None:
    """Outputs after the first must not be named, used or not."""
    named = [value.name for value in node.outputs[1:] if value.name]
    if not named:
        return None
    return f"it has the output {named[0]!r} beside the first", "use the first result only"


def spatial_1d_to_3d(node: "ir.Node", _version: int) -> Finding | None:
    """Convolutions and pools over one to three axes."""
    rank = _rank(_value(node, 0))
    if rank is None or 3 <= rank <= 5:
        return None
    return f"its input has {rank} axes, TensorRT knows 1-D to 3-D", "fold the extra axes into the batch"


def no_dilation(node: "ir.Node", _version: int) -> Finding | None:
    """Pools take neighbouring elements only."""
    dilations = node.attributes.get("dilations")
    if dilations is None or set(dilations.as_ints()) <= {1}:
        return None
    return f"dilations are {tuple(dilations.as_ints())}", "slice with a stride first, then pool without"


def inference_mode(node: "ir.Node", _version: int) -> Finding | None:
    """BatchNormalization and Dropout as at inference."""
    training = _int(node, "training_mode", 0)
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        constant = node.inputs[2].const_value
        training = 1 if constant is None else int(constant.numpy())
    return ("it is in training mode", "call model.eval() before the export") if training else None


def resize(node: "ir.Node", _version: int) -> Finding | None:
    """Modes, and which axes a cubic resize may touch."""
    transform = _text(node, "coordinate_transformation_mode", "half_pixel")
    if transform not in _RESIZE_TRANSFORMS:
        known = ", ".join(sorted(_RESIZE_TRANSFORMS))
        return f"coordinate_transformation_mode is {transform!r}", f"use one of {known}"
    if _int(node, "antialias", 0):
        return "it antialiases", "resize without antialias, or as a product with a constant matrix"
    policy = _text(node, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        return f"keep_aspect_ratio_policy is {policy!r}", "compute the size outside and stretch"
    nearest = _text(node, "nearest_mode", "round_prefer_floor")
    if transform == "tf_half_pixel_for_nn" and nearest != "round_prefer_floor":
        return f"nearest_mode is {nearest!r} with tf_half_pixel_for_nn", "use half_pixel"
    if _text(node, "mode", "nearest") == "cubic" and _touches_outer_axes(node):
        return "a cubic resize of other than the last two axes", "permute these two to the end first"
    return None


def _touches_outer_axes(node: "ir.Node") -> bool:
    scales = _value(node, 2)
    if scales is None or scales.const_value is None or scales.const_value.size == 0:
        return False
    factors = scales.const_value.numpy().tolist()
    return any(factor != 1.0 for factor in factors[:-2])


def topk(node: "ir.Node", version: int) -> Finding | None:
    """K of at most 3840; sorted in TensorRT 10."""
    k = _value(node, 1)
    if k is not None and k.const_value is not None:
        size = int(k.const_value.numpy().reshape(-1)[0])
        if size > TOPK_MAXIMUM:
            return f"K is {size}, more than {TOPK_MAXIMUM}", "sort in steps, or on the host"
    if version < 11 and not _int(node, "sorted", 1):
        return "sorted is 0, TensorRT 10 always sorts", "use topk(..., sorted=True)"
    return None


def no_reduction(node: "ir.Node", _version: int) -> Finding | None:
    """ScatterND only overwrites."""
    reduction = _text(node, "reduction", "none")
    if reduction == "none":
        return None
    return f"it scatters with reduction {reduction!r}", "gather, add, and scatter the sum"


def grid_4d(node: "ir.Node", version: int) -> Finding | None:
    """Images only before TensorRT 11."""
    rank = _rank(_value(node, 0))
    if version >= 11 or rank in (None, 4):
        return None
    return f"its input has {rank} axes, TensorRT 10 samples images only", "sample slice by slice"


def recurrent(node: "ir.Node", _version: int) -> Finding | None:
    """Layout, coupled gates, and equal activations both ways."""
    if _int(node, "layout", 0):
        return "layout is 1 (batch first)", "transpose around it, as the exporter of torch does"
    if _int(node, "input_forget", 0):
        return "input and forget gate are coupled", "use separate gates"
    names = node.attributes.get("activations")
    if names is not None and _text(node, "direction", "forward") == "bidirectional":
        each, given = _RNN_ACTIVATIONS[node.op_type], list(names.as_strings())
        if given[:each] != given[each : 2 * each]:
            return f"the two directions have different activations {given}", "use the same for both"
    return None


def branches(node: "ir.Node", version: int) -> Finding | None:
    """Both branches of an If give tensors of one rank; of one shape before TensorRT 11."""
    then, other = (node.attributes[name].as_graph() for name in ("then_branch", "else_branch"))
    for first, second in zip(then.outputs, other.outputs, strict=True):
        if first.shape is None or second.shape is None:
            continue
        shapes = [
            tuple(dim if isinstance(dim, int) else "?" for dim in shape)
            for shape in (first.shape, second.shape)
        ]
        same_rank = len(shapes[0]) == len(shapes[1])
        fits = same_rank and all(a == b or "?" in (a, b) for a, b in zip(*shapes, strict=True))
        if not same_rank or (not fits and version < 11):
            return (
                f"its branches give {first.name!r} as {shapes[0]} and {shapes[1]}",
                "pad the smaller one, so that both branches give one shape",
            )
    return None


def loop(node: "ir.Node", _version: int) -> Finding | None:
    """Carried values keep their shape, and what is collected has a length known at build."""
    body = node.attributes["body"].as_graph()
    carried = len(node.inputs) - 2
    for given, result in zip(body.inputs[2:], body.outputs[1 : 1 + carried], strict=True):
        if given.shape is None or result.shape is None:
            continue
        known = zip(given.shape, result.shape, strict=False)
        grows = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in known)
        if grows or len(given.shape) != len(result.shape):
            return (
                f"{given.name!r} enters an iteration as {given.shape} and leaves as {result.shape}",
                "preallocate it at its final size, and write into it",
            )
    collects = len(body.outputs) > 1 + carried
    if collects and not is_build_constant(_value(node, 0)):
        return "it collects a number of results that is known at run time only", "fix the trip count"
    return None


def symmetric(node: "ir.Node", version: int) -> Finding | None:
    """Quantization is symmetric, in int8 (uint8 with zero point 0 from TensorRT 11), and not of int32."""
    source = _value(node, 0)
    if source is not None and source.dtype is not None and source.dtype.name == "INT32":
        return "it dequantizes an int32 bias", "leave biases in float32 (ONNX Runtime: QuantizeBias=False)"
    if version < 11 and _quantized_type(node) == "UINT8":
        return "it quantizes to uint8", "quantize to int8, symmetric"
    zero = _value(node, 2)
    if zero is None:
        return None
    if zero.const_value is None:
        return "its zero point is computed at run time", "make it a constant 0"
    if zero.const_value.numpy().astype("float32").any():
        return "its zero point is not 0", "quantize symmetrically"
    return None


def _quantized_type(node: "ir.Node") -> str | None:
    """The low type of a Q or DQ node. ONNX's default, with neither zero point nor output_dtype, is uint8."""
    if node.op_type == "DequantizeLinear":
        value = _value(node, 0)
        return value.dtype.name if value is not None and value.dtype is not None else None
    zero = _value(node, 2)
    if zero is not None and zero.dtype is not None:
        return str(zero.dtype.name)
    return "UINT8" if not _int(node, "output_dtype", 0) else None


def plain_constant(node: "ir.Node", _version: int) -> Finding | None:
    """Constants are dense numbers."""
    wrong = sorted({"sparse_value", "value_string", "value_strings"} & set(node.attributes))
    return (f"it holds a {wrong[0]}", "use a dense tensor of numbers") if wrong else None


def random(_node: "ir.Node", _version: int) -> Finding | None:
    """Noise from inside the engine cannot be repeated."""
    return (
        "TensorRT ignores its seed, so no run could be compared with another",
        "make the noise an input of the model",
    )


def data_dependent(_node: "ir.Node", _version: int) -> Finding | None:
    """Sizes that only the data tell."""
    return (
        "the size of its output depends on the data, and sessions know sizes from those of the inputs",
        "mask instead (torch.where), or take a fixed number with topk",
    )


def all_of(*rules: Rule) -> Rule:
    """The first finding of several rules."""

    def rule(node: "ir.Node", version: int) -> Finding | None:
        found: Iterator[Finding] = (hit for each in rules if (hit := each(node, version)) is not None)
        return next(found, None)

    return rule
