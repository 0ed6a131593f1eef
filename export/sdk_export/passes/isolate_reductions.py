"""Keeps OpenVINO from fusing a constant into a reduction over the last axis of a rank-3 tensor.

OpenVINO's CPU plugin (2026.4.1) computes `Reduce(x[N, C, L], axis=2) ∘ c[C, 1]` wrongly from the second
sample of a batch on: the fused constant is indexed by the wrong axis (errors of 1e-1, in fp32). A Reshape
between the two stops the fusion, at no cost; Unsqueeze and Squeeze do not, OpenVINO removes them first.
"""

import numpy as np
import onnx_ir as ir


def isolate_reductions(graph: ir.Graph) -> None:
    """Rewrites in place `Reduce(x)` as `Reshape(Reduce(x))` where a constant would be fused.

    Needs the ranks of inner values.
    """
    for node in list(graph):
        if _is_hit(node):
            _with_reshape(graph, node)


def _is_hit(node: ir.Node) -> bool:
    if not node.op_type.startswith("Reduce") or not node.inputs:
        return False
    x = node.inputs[0]
    if x is None or x.shape is None or len(x.shape) != 3 or _axes(node) not in ([2], [-1]):
        return False
    return any(_is_channel_constant(value) for user, _ in node.outputs[0].uses() for value in user.inputs)


def _axes(node: ir.Node) -> list[int]:
    if len(node.inputs) < 2 or node.inputs[1] is None or node.inputs[1].const_value is None:
        return []
    return [int(axis) for axis in node.inputs[1].const_value.numpy().reshape(-1)]


def _is_channel_constant(value: ir.Value | None) -> bool:
    """A constant of more than one element, or what will fold into one."""
    if value is None:
        return False
    if value.const_value is not None:
        return value.const_value.size > 1
    producer = value.producer()
    return producer is not None and bool(producer.inputs) and all(map(_is_channel_constant, producer.inputs))


def _with_reshape(graph: ir.Graph, node: ir.Node) -> None:
    keepdims = node.attributes.get_int("keepdims", 1)
    (old,) = node.outputs
    name = old.name
    # x[N, C, L] -> [N, C] -> [N, C, 1], or the other way round; a 0 in Reshape copies the size.
    reduced = ir.node(node.op_type, list(node.inputs), {"keepdims": 1 - keepdims})
    shape = _constant(graph, f"{name}.shape", [0, 0, 1] if keepdims else [0, 0])
    reshaped = ir.node("Reshape", [reduced.outputs[0], shape])
    result = reshaped.outputs[0]
    result.shape, result.type = old.shape, old.type
    for new in (reduced, reshaped):
        new.metadata_props.update(node.metadata_props)
    graph.insert_before(node, [reduced, reshaped])
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    result.name = name


def _constant(graph: ir.Graph, name: str, values: list[int]) -> ir.Value:
    tensor = ir.Tensor(np.array(values, np.int64), name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(ir.DataType.INT64), const_value=tensor)
    graph.register_initializer(value)
    return value
