"""Labelled data of the caller: read once, checked, and split into a half to fit and a half held out."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdk_runtimes.errors import ArgumentError

Batch = tuple[Tensor, Tensor]
"""Inputs (B, ...) and labels (B,)."""
Data = Iterable[Batch] | Batch
"""Batches, from a list, a loader or a generator; or all of it as one pair."""

_FIX = "pass batches (inputs, labels): tensors (B, ...) and int64 (B,), or one such pair"


@dataclass(frozen=True)
class Labelled:
    """Samples and their classes.

    Attributes:
        inputs: (B, ...).
        labels: int64 (B,).
    """

    inputs: Tensor
    labels: Tensor

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes that occur, sorted."""
        return tuple(torch.unique(self.labels).tolist())

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: Tensor) -> "Labelled":
        """Some of the samples; `rows` are indices or a mask."""
        return Labelled(self.inputs[rows], self.labels[rows])


@dataclass(frozen=True)
class Halves:
    """What the edit is computed from, and what it is judged on."""

    fit: Labelled
    held_out: Labelled


def read(data: Data, what: str) -> Labelled:
    """Consumes the batches, once, and keeps them.

    Args:
        data: batches of (inputs, labels), or one pair.
        what: the argument's name, for messages.

    Raises:
        ArgumentError: empty, no pairs of tensors, shapes that differ, labels that are no classes, NaN, Inf.
    """
    if isinstance(data, Tensor) or not isinstance(data, Iterable):
        raise ArgumentError(
            f"{what} is a {type(data).__name__}", why="the classes come with the samples", fix=_FIX
        )
    batches = [data] if _is_pair(data) else list(data)
    pairs = [_checked(batch, f"batch {number} of {what}") for number, batch in enumerate(batches)]
    if not sum(len(labels) for _, labels in pairs):
        raise ArgumentError(
            f"{what} holds no sample", why="it is empty, or a generator that was used up before", fix=_FIX
        )
    shapes = sorted({tuple(inputs.shape[1:]) for inputs, _ in pairs})
    if len(shapes) > 1:
        raise ArgumentError(
            f"{what} holds samples of shapes {shapes}",
            why="one layer sees them together",
            fix="use one shape",
        )
    return Labelled(torch.cat([inputs for inputs, _ in pairs]), torch.cat([labels for _, labels in pairs]))


def split_by_class(data: Data, classes: Iterable[int]) -> tuple[Labelled, Labelled]:
    """Divides one data set into what shall be forgotten and what shall stay.

    Args:
        data: batches of (inputs, labels), or one pair.
        classes: those to forget.

    Returns:
        The samples of these classes, and all others.

    Raises:
        ArgumentError: what `read` refuses; a class that does not occur; no other class.
    """
    everything, wanted = read(data, "data"), sorted(set(classes))
    if absent := sorted(set(wanted) - set(everything.classes)):
        raise ArgumentError(
            f"class {absent[0]} does not occur in the data",
            why=f"the classes there are {list(everything.classes)}",
            fix="name one of them, or bring samples of it",
        )
    chosen = torch.isin(everything.labels, torch.tensor(wanted, dtype=torch.int64))
    if bool(chosen.all()) or not bool(chosen.any()):
        raise ArgumentError(
            f"classes to forget: {wanted}; classes there are: {list(everything.classes)}",
            why="something must be forgotten and something must stay",
            fix="name some of the classes, not all",
        )
    return everything.at(chosen), everything.at(~chosen)


def check_apart(forget: Labelled, retain: Labelled) -> None:
    """Refuses sets that cannot be told apart.

    Raises:
        ArgumentError: a class in both, or samples of different shapes or dtypes.
    """
    if both := sorted(set(forget.classes) & set(retain.classes)):
        raise ArgumentError(
            f"classes {both} occur in forget_data and in retain_data",
            why="what shall be forgotten cannot be retained",
            fix="divide one data set with sdk_pruning.forgetting.labelled.split_by_class",
        )
    kinds = [f"{tuple(each.inputs.shape[1:])} {each.inputs.dtype}" for each in (forget, retain)]
    if kinds[0] != kinds[1]:
        raise ArgumentError(
            f"forget_data holds {kinds[0]} samples, retain_data {kinds[1]}",
            why="one network reads both",
            fix="prepare both alike",
        )


def halves(data: Labelled, what: str, seed: int) -> Halves:
    """Splits every class in two at random; the odd sample goes to the half that is fitted to.

    Raises:
        ArgumentError: a class with a single sample, or fewer than four samples in all.
    """
    rng = torch.Generator().manual_seed(seed)
    fit, held_out = [], []
    for label in data.classes:
        rows = (data.labels == label).nonzero().flatten()
        if len(rows) < 2 or len(data) < 4:
            raise ArgumentError(
                f"{what} holds {len(rows)} sample(s) of class {label}, {len(data)} in all",
                why="half of every class is held out to judge by: it takes two of each, four in all",
                fix="bring more samples",
            )
        rows = rows[torch.randperm(len(rows), generator=rng)]
        held_out.append(rows[: len(rows) // 2])
        fit.append(rows[len(rows) // 2 :])
    return Halves(data.at(torch.cat(fit).sort().values), data.at(torch.cat(held_out).sort().values))


def _is_pair(data: object) -> bool:
    return (
        isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
    )


def _checked(batch: object, what: str) -> Batch:
    if not (isinstance(batch, tuple | list) and _is_pair(batch)):
        raise ArgumentError(
            f"{what} is no pair of tensors, but {_described(batch)}",
            why="the classes come with the samples",
            fix=_FIX,
        )
    inputs, labels = batch
    if inputs.ndim < 2 or labels.shape != inputs.shape[:1]:
        raise ArgumentError(
            f"{what} has inputs {tuple(inputs.shape)} and labels {tuple(labels.shape)}",
            why="a batch is (B, ...) with one label each",
            fix=_FIX,
        )
    if labels.dtype != torch.int64 or (labels < 0).any():
        raise ArgumentError(
            f"{what} has labels of dtype {labels.dtype}" + (", some below 0" if (labels < 0).any() else ""),
            why="a label is the index of a class",
            fix="labels.long(), counted from 0",
        )
    if not torch.isfinite(inputs).all():
        raise ArgumentError(
            f"{what} holds {int((~torch.isfinite(inputs)).sum())} values that are NaN or Inf",
            why="one of them spoils every moment",
            fix="clean the data",
        )
    return inputs.detach(), labels.detach().cpu()


def _described(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {[type(part).__name__ for part in value]}"
    return f"a {type(value).__name__}"
