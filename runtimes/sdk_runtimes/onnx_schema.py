"""The messages of ONNX, field by field. Source: onnx/onnx.proto of ONNX 1.21 (IR version 13)."""

from collections.abc import Mapping
from types import MappingProxyType

from sdk_runtimes.protobuf_wire import FIXED32, FIXED64, LENGTH, VARINT, Field, Message


def _message(
    *, one: Mapping[str, int] | None = None, numbers: Mapping[str, int] | None = None, **many: int
) -> Message:
    """Singular strings, bytes and messages; singular integers; repeated strings, bytes and messages."""
    fields = {number: Field(name, LENGTH) for name, number in (one or {}).items()}
    fields |= {number: Field(name, VARINT) for name, number in (numbers or {}).items()}
    fields |= {number: Field(name, LENGTH, repeated=True) for name, number in many.items()}
    return fields


MODEL = _message(
    one={"producer_name": 2, "producer_version": 3, "domain": 4, "doc_string": 6, "graph": 7},
    numbers={"ir_version": 1, "model_version": 5},
    opset_import=8,
    metadata_props=14,
    training_info=20,
    functions=25,
    configuration=26,
)
OPSET = _message(one={"domain": 1}, numbers={"version": 2})
GRAPH = _message(
    one={"name": 2, "doc_string": 10},
    node=1,
    initializer=5,
    input=11,
    output=12,
    value_info=13,
    quantization_annotation=14,
    sparse_initializer=15,
    metadata_props=16,
)
NODE = _message(
    one={"name": 3, "op_type": 4, "doc_string": 6, "domain": 7, "overload": 8},
    input=1,
    output=2,
    attribute=5,
    metadata_props=9,
    device_configurations=10,
)
FUNCTION = _message(
    one={"name": 1, "doc_string": 8, "domain": 10, "overload": 13},
    input=4,
    output=5,
    attribute=6,
    node=7,
    opset_import=9,
    attribute_proto=11,
    value_info=12,
    metadata_props=14,
)
ATTRIBUTE: Message = {
    **_message(
        one={
            "name": 1,
            "s": 4,
            "t": 5,
            "g": 6,
            "doc_string": 13,
            "tp": 14,
            "ref_attr_name": 21,
            "sparse_tensor": 22,
        },
        numbers={"i": 3, "type": 20},
        strings=9,
        tensors=10,
        graphs=11,
        type_protos=15,
        sparse_tensors=23,
    ),
    2: Field("f", FIXED32),
    7: Field("floats", FIXED32, repeated=True),
    8: Field("ints", VARINT, repeated=True),
}
TENSOR: Message = {
    **_message(
        one={"segment": 3, "name": 8, "raw_data": 9, "doc_string": 12},
        numbers={"data_type": 2, "data_location": 14},
        string_data=6,
        external_data=13,
        metadata_props=16,
    ),
    1: Field("dims", VARINT, repeated=True),
    4: Field("float_data", FIXED32, repeated=True),
    5: Field("int32_data", VARINT, repeated=True),
    7: Field("int64_data", VARINT, repeated=True),
    10: Field("double_data", FIXED64, repeated=True),
    11: Field("uint64_data", VARINT, repeated=True),
}
ENTRY = _message(one={"key": 1, "value": 2})
VALUE_INFO = _message(one={"name": 1, "type": 2, "doc_string": 3}, metadata_props=4)
TYPE = _message(
    one={
        "tensor_type": 1,
        "sequence_type": 4,
        "map_type": 5,
        "denotation": 6,
        "sparse_tensor_type": 8,
        "optional_type": 9,
    }
)
TENSOR_TYPE = _message(one={"shape": 2}, numbers={"elem_type": 1})
SEQUENCE_TYPE = _message(one={"elem_type": 1})  # of optional types too
SHAPE = _message(dim=1)
DIM = _message(one={"dim_param": 2, "denotation": 3}, numbers={"dim_value": 1})

# AttributeProto.type -> the field that holds it
ATTRIBUTE_KINDS = MappingProxyType(
    {
        1: "f",
        2: "i",
        3: "s",
        4: "t",
        5: "g",
        6: "floats",
        7: "ints",
        8: "strings",
        9: "tensors",
        10: "graphs",
        11: "sparse_tensor",
        12: "sparse_tensors",
        13: "tp",
        14: "type_protos",
    }
)

STRING = 8
# TensorProto.DataType -> (bits of an element, field for typed data, entries of that field per element)
DATA_TYPES = MappingProxyType(
    {
        1: (32, "float_data", 1.0),
        2: (8, "int32_data", 1.0),
        3: (8, "int32_data", 1.0),
        4: (16, "int32_data", 1.0),
        5: (16, "int32_data", 1.0),
        6: (32, "int32_data", 1.0),
        7: (64, "int64_data", 1.0),
        STRING: (64, "string_data", 1.0),  # a pointer at least
        9: (8, "int32_data", 1.0),
        10: (16, "int32_data", 1.0),
        11: (64, "double_data", 1.0),
        12: (32, "uint64_data", 1.0),
        13: (64, "uint64_data", 1.0),
        14: (64, "float_data", 2.0),
        15: (128, "double_data", 2.0),
        16: (16, "int32_data", 1.0),
        17: (8, "int32_data", 1.0),
        18: (8, "int32_data", 1.0),
        19: (8, "int32_data", 1.0),
        20: (8, "int32_data", 1.0),
        21: (4, "int32_data", 0.5),
        22: (4, "int32_data", 0.5),
        23: (4, "int32_data", 0.5),
        24: (8, "int32_data", 1.0),
        25: (2, "int32_data", 0.25),
        26: (2, "int32_data", 0.25),
    }
)
