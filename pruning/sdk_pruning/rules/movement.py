"""Operations that only move elements: run on the atoms themselves, so they are right by construction."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from sdk_pruning.atoms import NONE, Atoms
from sdk_pruning.axis_labels import Axis, Labels, equate, freeze, padded
from sdk_pruning.execution import operation_name
from sdk_pruning.propagation import Operation, Rule, bound_arguments

_NAMES = [
    "_unsafe_view",
    "expand",
    "expand_as",
    "flatten",
    "flip",
    "movedim",
    "permute",
    "pixel_shuffle",
    "pixel_unshuffle",
    "repeat",
    "repeat_interleave",
    "reshape",
    "reshape_as",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "tile",
    "transpose",
    "unflatten",
    "unsqueeze",
    "view",
    "view_as",
    "numpy_T",
    "mT",
    "adjoint",
    "moveaxis",
    "broadcast_to",
    "channel_shuffle",
    "native_channel_shuffle",
    "rot90",
]


def move(operation: Operation) -> Labels:
    """Runs the operation on the atoms of each axis."""
    moved: Labels = operation.arguments.get("self", operation.arguments.get("input"))
    axes: list[list[Atoms]] = [[] for _ in operation.shape]
    for axis, tracks in enumerate(moved.axes):
        for track in tracks:
            _place(operation, _rerun(operation, _spread(track, axis, moved.shape)), axes)
    return Labels(operation.shape, tuple(tuple(tracks) for tracks in axes))


def _spread(track: Atoms, axis: int, shape: tuple[int, ...]) -> Tensor:
    """A tensor of the full shape whose elements are the atoms along one axis."""
    ones = [1] * len(shape)
    ones[axis] = len(track)
    return torch.from_numpy(track).reshape(ones).expand(shape).contiguous()


def _rerun(operation: Operation, atoms: Tensor) -> Tensor:
    node = operation.node
    concrete = {
        name: _sizes(value) for name, value in operation.arguments.items() if not isinstance(value, Labels)
    }
    for name, value in operation.arguments.items():
        if isinstance(value, Labels):
            first = name in ("self", "input")
            concrete[name] = atoms if first else torch.empty(value.shape, dtype=torch.int64)
    assert isinstance(node.target, torch._ops.OpOverload), "only ATen operations move elements"
    moved = _called(node.target, concrete)
    assert isinstance(moved, Tensor), "lists have rules of their own"
    return moved


def _called(target: torch._ops.OpOverload, arguments: dict[str, Any]) -> Any:
    positional, keywords = [], {}
    for argument in target._schema.arguments:
        if argument.kwarg_only:
            keywords[argument.name] = arguments[argument.name]
        else:
            positional.append(arguments[argument.name])
    return target(*positional, **keywords)


def _sizes(value: Any) -> Any:
    return [int(item) for item in value] if isinstance(value, list | tuple) else value


def _place(operation: Operation, atoms: Tensor, axes: list[list[Atoms]]) -> None:
    """Puts moved atoms onto the axes along which they vary; several of them are factors of a split axis."""
    varied = [axis for axis in range(atoms.ndim) if atoms.shape[axis] > 1 and _varies(atoms, axis)]
    if not varied:
        operation.ties.freeze([int(atoms.flatten()[0])], f"{operation.where} takes it alone")
        return
    core = atoms[tuple(slice(None) if axis in varied else 0 for axis in range(atoms.ndim))].numpy()
    if len(varied) == 1:
        axes[varied[0]].append(core)
        return
    for axis, factor in zip(varied, factors(operation, core), strict=True):
        axes[axis].append(factor)


def _varies(atoms: Tensor, axis: int) -> bool:
    return bool((atoms != atoms.narrow(axis, 0, 1)).any())


def factors(operation: Operation, elements: np.ndarray[Any, np.dtype[np.int64]]) -> list[Atoms]:
    """Atoms for each axis of a split one. The same axis split the same way gives the same atoms.

    Args:
        operation: that splits.
        elements: atoms in the split shape.
    """
    known = operation.findings.factored
    key = (elements.tobytes(), elements.shape)
    if key not in known:
        made = [operation.ties.new(size) for size in elements.shape]
        grids = np.meshgrid(*made, indexing="ij")
        operation.ties.cover(elements.ravel(), tuple(grid.ravel() for grid in grids), operation.module)
        known[key] = made
    return known[key]


def take(operation: Operation, labels: Labels, axis: int, taken: range) -> Labels:
    """A stretch of an axis. Equal parts of a whole lose the same elements; any other stretch stays whole."""
    axis %= len(labels.shape)
    size, length = labels.shape[axis], len(taken)
    shape = (*labels.shape[:axis], length, *labels.shape[axis + 1 :])
    tracks = labels.axes[axis]
    if length == size or not tracks:
        return Labels(shape, labels.axes)
    parts = _equal_parts(size, taken)
    if parts is None or len(tracks) > 1:
        for track in tracks:
            counted = _counted(track, taken)
            operation.ties.freeze(counted.tolist(), f"{operation.where} takes elements at fixed places")
        kept: Axis = tuple(track[list(taken)] for track in tracks)
    else:
        split = factors(operation, tracks[0].reshape(parts))
        along = 1 if taken.step == 1 else 0
        operation.ties.freeze(split[1 - along].tolist(), f"{operation.where} counts its parts")
        kept = (split[along],)
    return Labels(shape, (*labels.axes[:axis], kept, *labels.axes[axis + 1 :]))


def _counted(track: Atoms, taken: range) -> Atoms:
    """The elements that code counts when it takes `track[start:stop]`; those beyond may go.

    Only a start from zero or an open end is counted from one side.
    """
    if taken.step != 1:
        return track
    return track[: taken.start] if taken.stop == len(track) else track[: taken.stop]


def _equal_parts(size: int, taken: range) -> tuple[int, int] | None:
    """The shape of an axis as (parts, length) or, for every n-th element, (length, n)."""
    length = len(taken)
    if not length or size % length:
        return None
    if taken.step == 1:
        return (size // length, length) if taken.start % length == 0 else None
    return (length, taken.step) if length * taken.step == size and taken.start < taken.step else None


def slice_axis(operation: Operation) -> Labels:
    """`x[a:b:step]`."""
    given = operation.arguments
    labels: Labels = given["self"]
    axis = given["dim"] % len(labels.shape)
    bounds = slice(given["start"], given["end"], given["step"])
    if any(isinstance(bound, int) and bound < 0 for bound in (bounds.start, bounds.stop)):
        freeze(operation.ties, labels.axes[axis], f"{operation.where} counts from the end")
    return take(operation, labels, axis, range(*bounds.indices(labels.shape[axis])))


def narrow(operation: Operation) -> Labels:
    """`x.narrow(dim, start, length)`."""
    given = operation.arguments
    labels: Labels = given["self"]
    start = given["start"] % max(labels.shape[given["dim"]], 1)
    return take(operation, labels, given["dim"], range(start, start + given["length"]))


def parts(operation: Operation) -> list[Labels]:
    """`chunk`, `split` and their kin: the stretches are read off the results."""
    given = operation.arguments
    labels: Labels = given["self"]
    axis = given["dim"] % len(labels.shape)
    sizes = {result.shape[axis] for result in operation.result}
    if len(sizes) > 1 and len(labels.axes[axis]) == 1:
        return _stretches(labels, axis, [result.shape[axis] for result in operation.result])
    start, taken = 0, []
    for result in operation.result:
        stop = start + result.shape[axis]
        taken.append(take(operation, labels, axis, range(start, stop)))
        start = stop
    return taken


def _stretches(labels: Labels, axis: int, sizes: list[int]) -> list[Labels]:
    """Parts of different widths: each goes its own way, and the code must be given the new widths."""
    track, taken = labels.axes[axis][0], []
    for size, stop in zip(sizes, np.cumsum(sizes).tolist(), strict=True):
        shape = (*labels.shape[:axis], size, *labels.shape[axis + 1 :])
        taken.append(Labels(shape, labels.axes).with_axis(axis, (track[stop - size : stop],)))
    return taken


def glu(operation: Operation) -> Labels:
    """The first half of an axis gated by the second."""
    labels: Labels = operation.arguments["self"]
    axis = operation.arguments["dim"] % len(labels.shape)
    half = labels.shape[axis] // 2
    value, gate = (take(operation, labels, axis, range(at, at + half)) for at in (0, half))
    return value.with_axis(axis, equate(operation.ties, value.axes[axis], gate.axes[axis], operation.where))


def select(operation: Operation) -> Labels:
    """`x[:, 3]`: what is picked by its place stays."""
    labels: Labels = operation.arguments["self"]
    return _without(operation, labels, operation.arguments["dim"])


def unbind(operation: Operation) -> list[Labels]:
    """All elements of an axis, each by its place."""
    labels: Labels = operation.arguments["self"]
    return [_without(operation, labels, operation.arguments["dim"]) for _ in operation.result]


def _without(operation: Operation, labels: Labels, axis: int) -> Labels:
    axis %= len(labels.shape)
    freeze(operation.ties, labels.axes[axis], f"{operation.where} picks by place")
    return Labels(
        labels.shape[:axis] + labels.shape[axis + 1 :], labels.axes[:axis] + labels.axes[axis + 1 :]
    )


def getitem(operation: Operation) -> Any:
    """One of several results."""
    return operation.arguments["0"][operation.arguments["1"]]


def concatenate(operation: Operation) -> Labels:
    """`cat`: along the axis the operands stand side by side, on all others they face each other."""
    operands = [label for label in operation.labels() if label.shape != (0,)]
    axis = operation.arguments["dim"] % len(operation.shape)
    axes = []
    for index in range(len(operation.shape)):
        if index == axis:
            axes.append(_side_by_side(operands, index))
            continue
        combined = operands[0].axes[index]
        for other in operands[1:]:
            combined = equate(operation.ties, combined, other.axes[index], operation.where)
        axes.append(combined)
    return Labels(operation.shape, tuple(axes))


def _side_by_side(operands: list[Labels], axis: int) -> Axis:
    count = max(len(operand.axes[axis]) for operand in operands)
    tracks = []
    for number in range(count):
        pieces = [
            operand.axes[axis][number]
            if number < len(operand.axes[axis])
            else np.full(operand.shape[axis], NONE, np.int64)
            for operand in operands
        ]
        tracks.append(np.concatenate(pieces))
    return tuple(tracks)


def stack(operation: Operation) -> Labels:
    """`stack`: a new axis; on the others the operands face each other."""
    operands = operation.labels()
    axis = operation.arguments["dim"] % len(operation.shape)
    axes = list(operands[0].axes)
    for other in operands[1:]:
        axes = [
            equate(operation.ties, mine, theirs, operation.where)
            for mine, theirs in zip(axes, other.axes, strict=True)
        ]
    return Labels(operation.shape, (*axes[:axis], (), *axes[axis:]))


def pad_constant(operation: Operation) -> Labels:
    """Padding with a constant: what is added stays, whatever it is added to."""
    labels: Labels = operation.arguments["self"]
    if operation.arguments.get("mode", "constant") != "constant":
        return pad(operation)
    amounts = list(operation.arguments["pad"])
    axes = list(labels.axes)
    for number in range(len(amounts) // 2):
        axis, before, after = len(axes) - 1 - number, amounts[2 * number], amounts[2 * number + 1]
        if min(before, after) < 0:
            freeze(operation.ties, axes[axis], f"{operation.where} crops it")
            axes[axis] = ()
        elif before or after:
            axes[axis] = tuple(padded(track, before, after) for track in axes[axis])
    return Labels(operation.shape, tuple(axes))


def pad(operation: Operation) -> Labels:
    """Padding with what is there; a padded axis stays whole."""
    labels: Labels = operation.arguments["self"]
    axes = []
    for index, axis in enumerate(labels.axes):
        grown = labels.shape[index] != operation.shape[index]
        if grown:
            freeze(operation.ties, axis, f"{operation.where} pads it")
        axes.append(() if grown else axis)
    return Labels(operation.shape, tuple(axes))


def roll(operation: Operation) -> Labels:
    """Rolling is counted in elements: a rolled axis stays whole."""
    labels: Labels = operation.arguments["self"]
    for dim in operation.arguments["dims"] or range(len(labels.shape)):  # none: it rolls over all
        freeze(operation.ties, labels.axes[dim], f"{operation.where} counts its elements")
    return labels


def transposed(node: fx.Node) -> bool:
    """Whether a node swaps the two axes of a matrix."""
    name = operation_name(node)
    if name in ("t", "numpy_T"):
        return True
    given = bound_arguments(node)
    return name == "transpose" and {given["dim0"] % 2, given["dim1"] % 2} == {0, 1}


RULES: dict[str, Rule] = {
    **dict.fromkeys(_NAMES, move),
    "slice": slice_axis,
    "narrow": narrow,
    **dict.fromkeys(
        ("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"), parts
    ),
    "select": select,
    "unbind": unbind,
    "getitem": getitem,
    **dict.fromkeys(("cat", "concat", "concatenate"), concatenate),
    "stack": stack,
    **dict.fromkeys(
        (
            "reflection_pad1d",
            "reflection_pad2d",
            "reflection_pad3d",
            "replication_pad1d",
            "replication_pad2d",
            "replication_pad3d",
        ),
        pad,
    ),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad_constant),
    "glu": glu,
    "roll": roll,
}
