"""A one-node ONNX file written by hand, so that peaks can be measured where the onnx package is absent."""

import numpy as np

# Field numbers of the messages, from onnx.proto3 (ONNX IR version 8, opset 17).
_MODEL = {"ir_version": 1, "graph": 7, "opset_import": 8}
_GRAPH = {"node": 1, "name": 2, "initializer": 5, "input": 11, "output": 12}
_FLOAT = 1
_IR_VERSION, _OPSET = 8, 17
_VARINT, _BYTES = 0, 2


def matmul_model(size: int) -> bytes:
    """`Y = X @ W` with fp32 matrices of `size` x `size`; W lies in the file, as weights do.

    Returns:
        A serialized ONNX ModelProto: input "X", output "Y".
    """
    weights = np.random.default_rng(0).standard_normal((size, size), np.float32)
    initializer = (
        _number(1, size)
        + _number(1, size)
        + _number(2, _FLOAT)
        + _text(8, "W")
        + _message(9, weights.astype("<f4").tobytes())
    )
    node = _text(1, "X") + _text(1, "W") + _text(2, "Y") + _text(4, "MatMul")
    graph = (
        _message(_GRAPH["node"], node)
        + _text(_GRAPH["name"], "matmul")
        + _message(_GRAPH["initializer"], initializer)
        + _message(_GRAPH["input"], _matrix("X", size))
        + _message(_GRAPH["output"], _matrix("Y", size))
    )
    return (
        _number(_MODEL["ir_version"], _IR_VERSION)
        + _message(_MODEL["graph"], graph)
        + _message(_MODEL["opset_import"], _number(2, _OPSET))
    )


def _matrix(name: str, size: int) -> bytes:
    """ValueInfoProto of a fp32 matrix."""
    dim = _message(1, _number(1, size))
    tensor = _number(1, _FLOAT) + _message(2, dim + dim)
    return _text(1, name) + _message(2, _message(1, tensor))


def _varint(value: int) -> bytes:
    """Base 128, least significant group first; the high bit says that more follows."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _message(field: int, payload: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(payload)) + payload


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())
