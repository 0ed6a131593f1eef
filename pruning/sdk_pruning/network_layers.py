"""The layers of a network that cost something, read off its graph."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from sdk_pruning.axis_labels import Axis, Labels
from sdk_pruning.execution import operation_name
from sdk_pruning.groups import Structure
from sdk_pruning.layers import Channels, Layer
from sdk_pruning.propagation import bound_arguments
from sdk_pruning.tracing import Traced


def network_layers(traced: Traced, structure: Structure) -> tuple[Layer, ...]:
    """Convolutions, linear layers and products, with the widths that their cost depends on.

    FLOPs are those of the sample inputs, two a multiply-add, as `torch.utils.flop_counter` counts them.
    """
    reader = _Reader(structure)
    layers: list[Layer] = []
    for node in traced.operations:
        found = _KINDS.get(operation_name(node))
        if found is not None:
            layers += found(node, reader)
    return tuple(layers)


class _Reader:
    """Labels of nodes, and axes as `Channels`."""

    def __init__(self, structure: Structure) -> None:
        self._labels = structure.findings.labels
        self._ties = structure.findings.ties
        self._group: dict[int, str] = {}
        self._units: dict[str, int] = {}
        for group in structure.groups:
            self._units[group.name] = len(group.units)
            for unit in group.units:
                self._group |= dict.fromkeys(unit.roots, group.name)

    def labels(self, node: Any) -> Labels:
        """Of a node."""
        found = self._labels[node.name]
        assert isinstance(found, Labels), "a layer's operands are tensors"
        return found

    def channels(self, axis: Axis, size: int) -> Channels:
        """An axis as a function of the groups' widths."""
        counts: dict[str, int] = {}
        for position in range(size):
            roots = [self._ties.root(int(track[position])) for track in axis if track[position] >= 0]
            group = next((self._group[root] for root in roots if root in self._group), None)
            if group is not None:
                counts[group] = counts.get(group, 0) + 1
        per_unit = {group: count // self._units[group] for group, count in counts.items()}
        return Channels(size - sum(counts.values()), per_unit)


def _convolution(node: fx.Node, reader: _Reader) -> list[Layer]:
    given = bound_arguments(node)
    features, weight, result = (
        reader.labels(given["input"]),
        reader.labels(given["weight"]),
        reader.labels(node),
    )
    inputs = reader.channels(features.axis(1), features.shape[1])
    outputs = reader.channels(result.axis(1), result.shape[1])
    taps, groups = prod(weight.shape[2:]), given["groups"]
    transposed = operation_name(node).startswith("conv_transpose")
    positions = (
        prod(features.shape) // features.shape[1] if transposed else prod(result.shape) // result.shape[1]
    )
    grouped = groups > 1
    wide = features.shape[1] // groups if grouped else 1
    if reader.channels(features.axis(0), features.shape[0]).per_unit:  # heads that were merged with the batch
        axes = [(features.axis(0), features.shape[0]), (result.axis(1), result.shape[1])]
        axes += [] if grouped else [(features.axis(1), features.shape[1])]
        return [_of_axes(node.name, axes, reader, 2.0 * taps * wide * (positions // features.shape[0]))]
    build = (
        None if transposed or (grouped and wide > 1) else _convolution_alone(features, weight, given, grouped)
    )
    return [
        Layer(
            name=node.name,
            inputs=inputs,
            outputs=outputs,
            flops_per_pair=2.0 * positions * taps * wide,
            depthwise=grouped,
            build=build,
            shape_key=f"{operation_name(node)}{features.shape[0]}{features.shape[2:]}{weight.shape[2:]}"
            f"{given['stride']}{given['padding']}{given['dilation']}{grouped}",
        )
    ]


def _convolution_alone(
    features: Labels, weight: Labels, given: Mapping[str, Any], grouped: bool
) -> Callable[[int, int], tuple[nn.Module, Tensor]]:
    kinds: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    kind = kinds[len(weight.shape) - 2]

    def build(inputs: int, outputs: int) -> tuple[nn.Module, Tensor]:
        inputs = outputs if grouped else inputs
        layer = kind(
            inputs,
            outputs,
            tuple(weight.shape[2:]),
            stride=_numbers(given["stride"]),
            padding=given["padding"] if isinstance(given["padding"], str) else _numbers(given["padding"]),
            dilation=_numbers(given["dilation"]),
            groups=outputs if grouped else 1,
        )
        return layer, torch.randn(features.shape[0], inputs, *features.shape[2:])

    return build


def _numbers(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _linear(node: fx.Node, reader: _Reader) -> list[Layer]:
    given = bound_arguments(node)
    features, result = reader.labels(given["input"]), reader.labels(node)
    rows = prod(features.shape[:-1])
    leading = list(zip(features.axes[:-1], features.shape[:-1], strict=True))
    if any(reader.channels(axis, size).per_unit for axis, size in leading):  # one layer for every head
        own = [(axis.axis(-1), axis.shape[-1]) for axis in (features, result)]
        return [_of_axes(node.name, [*leading, *own], reader)]

    def build(inputs: int, outputs: int) -> tuple[nn.Module, Tensor]:
        return nn.Linear(inputs, outputs), torch.randn(*features.shape[:-1], inputs)

    return [
        Layer(
            name=node.name,
            inputs=reader.channels(features.axis(-1), features.shape[-1]),
            outputs=reader.channels(result.axis(-1), result.shape[-1]),
            flops_per_pair=2.0 * rows,
            build=build,
            shape_key=f"linear{features.shape[:-1]}",
        )
    ]


def _product(node: fx.Node, reader: _Reader) -> list[Layer]:
    left, right = [reader.labels(used) for used in node.all_input_nodes if _is_matrix(reader.labels(used))][
        -2:
    ]
    batch = [
        (axis, size)
        for axis, size in zip(reader.labels(node).axes[:-2], reader.labels(node).shape[:-2], strict=True)
    ]
    axes = [
        *batch,
        (left.axis(-2), left.shape[-2]),
        (left.axis(-1), left.shape[-1]),
        (right.axis(-1), right.shape[-1]),
    ]
    return [_of_axes(node.name, axes, reader)]


def _is_matrix(labels: Labels) -> bool:
    return len(labels.shape) > 1


def _of_axes(name: str, axes: list[tuple[Axis, int]], reader: _Reader, each: float = 2.0) -> Layer:
    """A product over several axes; at most two of them can shrink in one pruning."""
    shrinking: list[Channels] = []
    rest = each
    for axis, size in axes:
        channels = reader.channels(axis, size)
        if channels.per_unit and len(shrinking) < 2:
            shrinking.append(channels)
        else:
            rest *= size
    first, second = (*shrinking, Channels(1), Channels(1))[:2]
    return Layer(name, first, second, rest)


def _attention(node: fx.Node, reader: _Reader) -> list[Layer]:
    given = bound_arguments(node)
    query, key, value = (reader.labels(given[name]) for name in ("query", "key", "value"))
    batch = list(zip(query.axes[:-2], query.shape[:-2], strict=True))
    both = [*batch, ((), query.shape[-2]), ((), key.shape[-2])]
    return [
        _of_axes(f"{node.name}:scores", [*both, (query.axis(-1), query.shape[-1])], reader),
        _of_axes(f"{node.name}:values", [*both, (value.axis(-1), value.shape[-1])], reader),
    ]


_KINDS: Mapping[str, Callable[[fx.Node, _Reader], list[Layer]]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm"), _product),
    "scaled_dot_product_attention": _attention,
}
