"""Which numbers in modules' code must change when units go: the calls of a run, matched with the graph."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from sdk_pruning.axis_labels import Labels
from sdk_pruning.calls import Call
from sdk_pruning.checking import attempt
from sdk_pruning.execution import operation_name
from sdk_pruning.groups import Structure
from sdk_pruning.removal import Removed
from sdk_pruning.resizing import SizedCall, SizedCalls, counting_class
from sdk_pruning.tracing import Traced

_KINDS = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "unflatten"), "shape"),
    **dict.fromkeys(("expand", "broadcast_to"), "expand"),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split"), "split"),
}


@dataclass(frozen=True, order=True)
class Place:
    """One number that code gives to a call.

    Attributes:
        module: path of the module whose forward pass makes the call.
        call: which of the module's calls that take sizes.
        position: among the call's sizes.
        node: of the graph, whose result has that size.
        part: which of several results; 0 where there is one.
        axis: of the result.
    """

    module: str
    call: int
    position: int
    node: str
    part: int
    axis: int


def sizes_at(structure: Structure, removed: Removed, place: Place) -> int:
    """The size that belongs at a place when units go."""
    labels = structure.findings.labels[place.node]
    return _size(structure, structure.roots(removed), _part(labels, place.part), place.axis)


def _part(labels: Any, part: int) -> Labels:
    found = labels[part] if isinstance(labels, list | tuple) else labels
    assert isinstance(found, Labels), "the call gives tensors"
    return found


def _size(structure: Structure, gone: frozenset[int], labels: Labels, axis: int) -> int:
    size, ties = labels.shape[axis], structure.findings.ties
    tracks = [ties.roots(track).tolist() for track in labels.axes[axis]]
    return sum(all(track[index] not in gone for track in tracks) for index in range(size))


def places_of(
    model: nn.Module, cut: nn.Module, traced: Traced, structure: Structure, removed: Removed, call: Call
) -> set[Place]:
    """Numbers that code would give wrongly.

    Args:
        model: dense.
        cut: the same without the removed slices; it is run with the right sizes in place of the code's.
        traced: the graph.
        structure: labels of the graph.
        removed: units that went.
        call: sample inputs.
    """
    gone = structure.roots(removed)
    found: set[Place] = set()
    nodes = {path: _sized_nodes(traced, path) for path in _modules(traced, structure, gone)}
    matches = {path: _matched(model, path, nodes[path], structure, call) for path in nodes}
    for path, matched in matches.items():
        module = cut.get_submodule(path)

        def watch(_module: nn.Module, path: str = path, matched: Sequence[str] = matched) -> SizedCalls:
            def change(number: int, sized: SizedCall) -> list[Any]:
                if number >= len(matched):
                    return sized.sizes
                places = _corrected(structure, gone, matched[number], sized)
                found.update(Place(path, number, *place) for place, _ in places)
                new = {place[0]: size for place, size in places}
                return [new.get(position, size) for position, size in enumerate(sized.sizes)]

            return SizedCalls(change)

        module.__class__ = counting_class(type(module), watch, type(module).__name__)
    _, reason = attempt(cut, call)
    return set() if reason else found


def _corrected(
    structure: Structure, gone: frozenset[int], node: str, sized: SizedCall
) -> list[tuple[tuple[int, str, int, int], int]]:
    """(position, node, part, axis) and right size, wherever the code gives another one."""
    labels, found = structure.findings.labels[node], []
    for position, given in enumerate(sized.sizes):
        splits = sized.kind == "split"
        part = position if splits else 0
        axis = sized.first if splits else sized.first + position
        label = _part(labels, part)
        axis %= len(label.shape)
        size = _size(structure, gone, label, axis)
        if given != -1 and int(given) != size:
            found.append(((position, node, part, axis), size))
    return found


def _modules(traced: Traced, structure: Structure, gone: frozenset[int]) -> list[str]:
    """Innermost modules whose code writes out a size that changes."""
    paths = []
    for node in traced.operations:
        if operation_name(node) not in _KINDS:
            continue
        labels = structure.findings.labels[node.name]
        parts = labels if isinstance(labels, list | tuple) else [labels]
        changed = any(
            _size(structure, gone, part, axis) < part.shape[axis]
            for part in parts
            for axis in range(len(part.shape))
        )
        path = _stack(node)[-1]
        if changed and path not in paths:
            paths.append(path)
    return paths


def _stack(node: fx.Node) -> list[str]:
    """Paths of the modules that a node came from, the model itself ("") first."""
    stack = node.meta.get("nn_module_stack") or {}
    return ["", *(path for path, _ in stack.values() if path and not path.startswith("_empty_nn_module"))]


def _sized_nodes(traced: Traced, path: str) -> list[fx.Node]:
    return [node for node in traced.operations if operation_name(node) in _KINDS and path in _stack(node)]


def _matched(
    model: nn.Module, path: str, nodes: Sequence[fx.Node], structure: Structure, call: Call
) -> list[str]:
    """Number of a call in the module's forward pass -> the node that it became, as far as they can be told.

    Calls come in the same order; the graph may have nodes in between that no call of the code made.
    """
    shapes: list[tuple[str, Any]] = []
    dense = deepcopy(model)
    module = dense.get_submodule(path)

    def listen(_module: nn.Module) -> SizedCalls:
        shapes.clear()

        def change(_number: int, sized: SizedCall) -> list[Any]:
            shapes.append((sized.kind, _shapes(sized.again(sized.sizes))))
            return sized.sizes

        return SizedCalls(change)

    module.__class__ = counting_class(type(module), listen, type(module).__name__)
    attempt(dense, call)
    rest, matched = iter(nodes), []
    for kind, shape in shapes:
        for node in rest:
            if _KINDS[operation_name(node)] == kind and _node_shapes(node, structure) == shape:
                matched.append(node.name)
                break
        else:
            return matched
    return matched


def _shapes(result: Any) -> Any:
    if isinstance(result, Tensor):
        return tuple(result.shape)
    return [tuple(part.shape) for part in result]


def _node_shapes(node: fx.Node, structure: Structure) -> Any:
    labels = structure.findings.labels[node.name]
    return [part.shape for part in labels] if isinstance(labels, list | tuple) else labels.shape
