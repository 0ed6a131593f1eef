"""Lookups by tensors of places, and pairs that are complex numbers."""

from sdk_pruning.axis_labels import Axis, Labels, freeze
from sdk_pruning.propagation import Operation, Rule


def indexed(operation: Operation) -> Labels:
    """`x[:, i]` with tensors of places: what is looked up stays whole, the other axes pass."""
    labels: Labels = operation.arguments["self"]
    indices = list(operation.arguments["indices"])
    where = [axis for axis, index in enumerate(indices) if index is not None]
    for axis in where:
        freeze(operation.ties, labels.axes[axis], f"{operation.where} looks it up")
        operation.ties.freeze(indices[axis].atoms, f"{operation.where} looks up by it")
    others = [axis for axis in range(len(labels.shape)) if axis not in where]
    new = len(operation.shape) - len(others)
    together = where == list(range(where[0], where[-1] + 1))
    at = where[0] if together else 0
    axes: list[Axis] = [labels.axes[axis] for axis in others]
    return Labels(operation.shape, (*axes[:at], *((),) * new, *axes[at:]))


def index_select(operation: Operation) -> Labels:
    """`x.index_select(dim, places)`."""
    labels: Labels = operation.arguments["self"]
    axis = operation.arguments["dim"] % len(labels.shape)
    freeze(operation.ties, labels.axes[axis], f"{operation.where} looks it up")
    return Labels(operation.shape, labels.with_axis(axis, ()).axes)


def complex_of(operation: Operation) -> Labels:
    """Pairs along the last axis become complex numbers."""
    labels: Labels = operation.arguments["self"]
    freeze(operation.ties, labels.axes[-1], f"{operation.where} pairs it")
    return Labels(operation.shape, labels.axes[:-1])


def real_of(operation: Operation) -> Labels:
    """Complex numbers become pairs along a new last axis."""
    labels: Labels = operation.arguments["self"]
    return Labels(operation.shape, (*labels.axes, ()))


RULES: dict[str, Rule] = {
    "index": indexed,
    "index_select": index_select,
    "view_as_complex": complex_of,
    "view_as_real": real_of,
}
