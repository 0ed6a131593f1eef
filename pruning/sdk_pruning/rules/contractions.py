"""Layers and products: what is summed over is a use, what comes out is a new axis."""

from torch import fx

from sdk_pruning.atoms import DIMS, HEADS, VALUES
from sdk_pruning.axis_labels import Axis, Labels, equate, freeze
from sdk_pruning.propagation import Operation, Rule, Use, bound_arguments
from sdk_pruning.rules.movement import transposed


def linear(operation: Operation) -> Labels:
    """Y = x Wᵀ + b, W (outputs, inputs)."""
    features: Labels = operation.arguments["input"]
    weight: Labels = operation.arguments["weight"]
    bias = operation.arguments["bias"]
    columns = equate(operation.ties, features.axis(-1), weight.axis(1), operation.where)
    _use(operation, "linear", "input", len(features.shape) - 1, columns, weight, 1, bias)
    outputs = _with_bias(operation, weight.axis(0), bias)
    return Labels(operation.shape, (*features.axes[:-1], outputs))


def _with_bias(operation: Operation, outputs: Axis, bias: object) -> Axis:
    if isinstance(bias, Labels) and bias.shape[-1] > 1:
        return equate(operation.ties, outputs, bias.axis(-1), operation.where)
    return outputs


def _use(
    operation: Operation,
    kind: str,
    features: str,
    axis: int,
    columns: Axis,
    weight: Labels | None = None,
    weight_axis: int = 1,
    bias: object = None,
) -> None:
    operation.findings.uses.append(
        Use(
            node=operation.node.name,
            kind=kind,
            features=operation.source_node(features),
            axis=axis,
            columns=columns,
            weight=weight.source if weight is not None else None,
            weight_axis=weight_axis,
            bias=bias.source if isinstance(bias, Labels) else None,
            module=operation.module,
        )
    )


def convolution(operation: Operation) -> Labels:
    """W (outputs, inputs / groups, taps…), or (inputs, outputs / groups, taps…) where transposed."""
    features: Labels = operation.arguments["input"]
    weight: Labels = operation.arguments["weight"]
    bias, groups = operation.arguments["bias"], operation.arguments["groups"]
    is_transposed = operation.name.startswith("conv_transpose")
    reads, writes = (0, 1) if is_transposed else (1, 0)
    for axis in (*features.axes[2:], *weight.axes[2:]):
        freeze(operation.ties, axis, f"{operation.where} slides over it")
    if groups > 1:
        outputs = _grouped(operation, features.axis(1), weight, groups, is_transposed)
    else:
        columns = equate(operation.ties, features.axis(1), weight.axis(reads), operation.where)
        kind = "transposed_conv" if is_transposed else "conv"
        _use(operation, kind, "input", 1, columns, weight, reads, bias)
        outputs = weight.axis(writes)
    spatial: tuple[Axis, ...] = ((),) * (len(operation.shape) - 2)
    return Labels(operation.shape, (features.axes[0], _with_bias(operation, outputs, bias), *spatial))


def _grouped(operation: Operation, inputs: Axis, weight: Labels, groups: int, is_transposed: bool) -> Axis:
    """Input and output channels of one group go together, so whole groups go."""
    if weight.source is not None:
        operation.findings.grouped[weight.source] = groups
    freeze(operation.ties, weight.axis(1), f"{operation.where} has groups of fixed width")
    rows = weight.axis(0)
    depthwise = len(rows) == 1 and len(rows[0]) == groups == operation.arguments["input"].shape[1]
    if depthwise and not (is_transposed and weight.shape[1] > 1):
        return equate(operation.ties, inputs, rows, operation.where)
    if len(inputs) > 1 or len(rows) != 1:
        freeze(operation.ties, (*inputs, *rows), f"{operation.where} has groups")
        return ()
    if is_transposed:  # the weight's rows are what is read; what is written has no slices of its own
        inputs = equate(operation.ties, inputs, rows, operation.where)
        rows = (operation.ties.new(operation.shape[1]),)
    if not inputs:
        freeze(operation.ties, rows, f"{operation.where} pairs it with an axis of fixed size")
        return rows
    for read, written in zip(inputs[0].reshape(groups, -1), rows[0].reshape(groups, -1), strict=True):
        operation.ties.tie(read[:-1], read[1:], operation.where)
        operation.ties.tie(written[:-1], written[1:], operation.where)
        operation.ties.tie(read[:1], written[:1], operation.where)
    return rows


def product(operation: Operation) -> Labels:
    """`matmul` and its kin: (…, M, K) by (…, K, N); a parameter on either side makes it a layer."""
    left, right = operation.labels()[-2:] if operation.name == "addmm" else operation.labels()[:2]
    names = {"addmm": ("mat1", "mat2"), "mm": ("self", "mat2"), "bmm": ("self", "mat2")}.get(
        operation.name, ("self", "other")
    )
    if min(len(left.shape), len(right.shape)) < 2:
        return _vector_product(operation, left, right)
    contracted = equate(operation.ties, left.axis(-1), right.axis(-2), operation.where)
    weight = _parameter_behind(operation, names[1])
    bias = operation.arguments.get("self") if operation.name == "addmm" else None
    if weight is not None:
        source, axis = weight
        found = Labels(right.shape, right.axes, source)
        _use(operation, "linear", names[0], len(left.shape) - 1, contracted, found, axis, bias)
    else:
        _use(operation, "product", names[0], len(left.shape) - 1, contracted)
        _mark_attention(operation, left, right, contracted)
    batch = _batch_axes(operation, left, right)
    outputs = _with_bias(operation, right.axis(-1), bias)
    return Labels(operation.shape, (*batch, left.axis(-2), outputs))


def _vector_product(operation: Operation, left: Labels, right: Labels) -> Labels:
    operation.ties.freeze([*left.atoms, *right.atoms], f"{operation.where} needs it whole")
    return Labels(operation.shape, ((),) * len(operation.shape))


def _parameter_behind(operation: Operation, name: str) -> tuple[str, int] | None:
    """The matrix that an argument is, as it stands or transposed, and its axis that is summed over."""
    node = bound_arguments(operation.node)[name]
    assert isinstance(node, fx.Node), "a product has two tensors"
    labels = operation.findings.labels[node.name]
    if labels.source is not None and len(labels.shape) == 2:
        return labels.source, 0
    if node.op == "call_function" and transposed(node):
        behind = operation.findings.labels[node.all_input_nodes[0].name]
        if behind.source is not None and len(behind.shape) == 2:
            return behind.source, 1
    return None


def _batch_axes(operation: Operation, left: Labels, right: Labels) -> list[Axis]:
    rank = len(operation.shape)
    axes = []
    for from_end in range(-rank, -2):
        facing = [
            label.axes[from_end]
            for label in (left, right)
            if len(label.shape) >= -from_end and label.shape[from_end] > 1
        ]
        combined: Axis = facing[0] if facing else ()
        if len(facing) == 2:
            combined = equate(operation.ties, combined, facing[1], operation.where)
        _mark(operation, combined, HEADS)
        axes.append(combined)
    return axes


def _mark_attention(operation: Operation, left: Labels, right: Labels, contracted: Axis) -> None:
    """A product of q and k is summed over dims, attention times v writes what values carry.

    Positions get marks as well and never go.
    """
    if left.axis(-1) and right.axis(-2):
        _mark(operation, contracted, DIMS)
    _mark(operation, right.axis(-1), VALUES)


def _mark(operation: Operation, axis: Axis, role: str) -> None:
    for track in axis:
        operation.ties.mark(track, role)


def attention(operation: Operation) -> Labels:
    """`scaled_dot_product_attention`: q (…, H, L, D), k (…, H, S, D), v (…, H, S, E); heads may be shared."""
    query, key, value = (operation.arguments[name] for name in ("query", "key", "value"))
    ties, where = operation.ties, operation.where
    dims = equate(ties, query.axis(-1), key.axis(-1), where)
    _use(operation, "product", "query", len(query.shape) - 1, dims)
    _mark(operation, dims, DIMS)
    _mark(operation, value.axis(-1), VALUES)
    for axis in (query.axis(-2), key.axis(-2), value.axis(-2)):
        freeze(ties, axis, f"{where} attends over it")
    axes = []
    for from_end in range(-len(operation.shape), -2):
        heads = query.axis(from_end)
        for other in (key, value):
            if other.shape[from_end] == 1:
                continue
            facing = _repeated(other.axis(from_end), other.shape[from_end], query.shape[from_end])
            heads = equate(ties, heads, facing, where)
        if from_end == -3:
            _mark(operation, heads, HEADS)
        axes.append(heads)
    mask = operation.arguments.get("attn_mask")
    if isinstance(mask, Labels):
        for axis in (*mask.axes[:-3], *mask.axes[-2:]):
            freeze(ties, axis, f"{where} masks with it")
        if len(mask.shape) > 2 and mask.shape[-3] > 1:
            axes[-1] = equate(ties, axes[-1], mask.axes[-3], where)
    return Labels(operation.shape, (*axes, query.axis(-2), value.axis(-1)))


def _repeated(heads: Axis, count: int, wanted: int) -> Axis:
    """Shared key heads as the query heads see them: each serves `wanted / count` in a row."""
    return tuple(track.repeat(wanted // count) for track in heads)


def embedding(operation: Operation) -> Labels:
    """Rows of a table: the row number is data, the columns are new channels."""
    table: Labels = operation.arguments["weight"]
    freeze(operation.ties, table.axis(0), f"{operation.where} looks rows up")
    if table.source is not None:
        operation.findings.tables.add(table.source)
    for axis in operation.arguments["indices"].axes:
        freeze(operation.ties, axis, f"{operation.where} looks it up")
    indices: tuple[Axis, ...] = ((),) * (len(operation.shape) - 1)
    return Labels(operation.shape, (*indices, table.axis(1)))


RULES: dict[str, Rule] = {
    "linear": linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), convolution),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm"), product),
    "scaled_dot_product_attention": attention,
    "embedding": embedding,
}
