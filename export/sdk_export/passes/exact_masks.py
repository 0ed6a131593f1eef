"""Gives attention over nothing its exact answer: a query whose keys are all masked gets zeros.

Eager PyTorch says so. The ONNX translation writes the boolean mask as the lowest finite float, so that such a
row becomes the mean of all values, and its own guard, which turns the NaN of a row of -inf into zero, never
fires. Padding rows of a batch are such queries.

    Where(mask, 0, lowest) -> Add -> Softmax -> IsNaN        becomes        Where(mask, 0, -inf) -> …
"""

import numpy as np
import onnx_ir as ir

_NAME = "mask.minus_inf"


def exact_masks(graph: ir.Graph) -> None:
    """Rewrites in place the masks that only guarded attention reads."""
    for node in graph:
        if node.op_type == "Where" and _is_lowest(node.inputs[2]) and _feeds_only_guarded(node.outputs[0]):
            node.replace_input_with(2, _minus_inf(graph))


def _is_lowest(value: ir.Value | None) -> bool:
    constant = value.const_value if value is not None else None
    if constant is None or constant.dtype != ir.DataType.FLOAT or constant.size != 1:
        return False
    return float(constant.numpy().reshape(-1)[0]) == float(np.finfo(np.float32).min)


def _feeds_only_guarded(mask: ir.Value) -> bool:
    """Whether all that reads the mask is `Add -> Softmax -> IsNaN`."""
    adds = [use.node for use in mask.uses()]
    return bool(adds) and all(
        add.op_type == "Add"
        and all(use.node.op_type == "Softmax" and _is_guarded(use.node) for use in add.outputs[0].uses())
        for add in adds
    )


def _is_guarded(softmax: ir.Node) -> bool:
    return any(use.node.op_type == "IsNaN" for use in softmax.outputs[0].uses())


def _minus_inf(graph: ir.Graph) -> ir.Value:
    if _NAME not in graph.initializers:
        tensor = ir.Tensor(np.array(-np.inf, np.float32), name=_NAME)
        value = ir.Value(
            name=_NAME, shape=tensor.shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor
        )
        graph.register_initializer(value)
    return graph.initializers[_NAME]
