"""Calibration data: unlabelled inputs, in whatever form they come, checked and split."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdk_pruning.calls import Call, as_call
from sdk_runtimes.errors import PruningError

CHUNK = 32
"""Samples that run at once."""
HELD_OUT = 0.25
"""Share of the samples that judges what the others have decided."""
_MOST_BATCHES = 100_000
"""A generator without end must have given enough samples by then."""


@dataclass(frozen=True)
class Calibration:
    """Calls of at most `CHUNK` samples each.

    Attributes:
        fit: that moments are taken from.
        judge: that results are judged by; the same as `fit` where there was a single sample.
        samples: in both together.
        held_out: samples in `judge` that are not in `fit`.
    """

    fit: tuple[Call, ...]
    judge: tuple[Call, ...]
    samples: int
    held_out: int


def read_calibration(data: object, like: Call, *, limit: int, any_batch: bool) -> Calibration:
    """Reads up to `limit` samples and splits them.

    Args:
        data: a batch (tensor, array, or dict of keyword arguments), or an iterable, generator or function
            that gives batches: tensors or arrays, tuples of positional or dicts of keyword arguments. Labels
            that a loader adds are dropped. A tuple is an iterable of batches.
        like: the sample call.
        limit: most samples.
        any_batch: whether the network runs at any batch size; if not, batches must be as large as the
            sample's.

    Raises:
        PruningError: there are no samples, they hold NaN or infinity, or do not fit the sample inputs.
    """
    calls: list[Call] = []
    taken = 0
    for number, batch in enumerate(islice(_batches(data, like), _MOST_BATCHES)):
        call = as_call(batch, like)
        _refuse_unfit(call, like, number, any_batch=any_batch)
        size = call.batch_size
        if size > limit - taken and any_batch:
            call = call.split(limit - taken)[0]
        calls.append(call)
        taken += call.batch_size
        if taken >= limit:
            break
    if not taken:
        raise PruningError(
            "the calibration data hold no samples",
            why="what a channel is worth is measured on them; a few dozen unlabelled inputs will do",
            fix="sdk.prune(model, [torch.rand(32, 3, 224, 224), …], …); a generator can be used up only once",
        )
    return _split(calls, taken, any_batch=any_batch)


def _batches(data: object, like: Call) -> Iterator[Any]:
    if isinstance(data, Tensor | np.ndarray | Mapping):
        return iter((data,))
    if isinstance(data, Callable):  # type: ignore[arg-type]  # an ABC that checks for __call__
        return _batches(data(), like)  # type: ignore[operator]  # it was just checked
    if isinstance(data, Iterable):
        return iter(data)
    raise PruningError(
        f"calibration data of type {type(data).__name__}",
        why="batches of inputs are needed",
        fix="pass a tensor, or an iterable or generator of tensors, tuples or dicts",
    )


def _refuse_unfit(call: Call, like: Call, number: int, *, any_batch: bool) -> None:
    given, wanted = call.tensors, like.tensors
    if len(given) != len(wanted):
        raise PruningError(
            f"batch {number} of the calibration data holds {len(given)} tensors",
            why=f"the sample inputs hold {len(wanted)}",
            fix="give every batch the form of sample_inputs",
        )
    for one, other in zip(given, wanted, strict=True):
        batched = one.ndim > 0 and any_batch
        if one.ndim != other.ndim or one.shape[batched:] != other.shape[batched:]:
            raise PruningError(
                f"batch {number} of the calibration data has shape {tuple(one.shape)}",
                why=f"the sample inputs have {tuple(other.shape)}"
                + ("" if any_batch else ", and the network runs at this batch size only"),
                fix="give every batch the shape of sample_inputs",
            )
        if one.is_floating_point() and not bool(one.isfinite().all()):
            raise PruningError(
                f"batch {number} of the calibration data holds NaN or infinity",
                why="every moment would be NaN",
                fix="leave such samples out",
            )


def _split(calls: list[Call], samples: int, *, any_batch: bool) -> Calibration:
    """The last quarter judges."""
    at = samples - int(samples * HELD_OUT)
    fit, judge, seen = [], [], 0
    for call in calls:
        before, after = _cut(call, at - seen) if any_batch else _whole(call, at - seen)
        fit += before
        judge += after
        seen += call.batch_size
    if any_batch:
        fit, judge = _joined(fit), _joined(judge)
    held_out = sum(call.batch_size for call in judge)
    return Calibration(tuple(fit), tuple(judge or fit), samples, held_out)


def _cut(call: Call, at: int) -> tuple[list[Call], list[Call]]:
    """A call in two, in pieces of at most `CHUNK` samples; `at` may lie outside."""
    size = call.batch_size
    if at <= 0:
        return [], call.split(CHUNK)
    if at >= size:
        return call.split(CHUNK), []
    first = call.batched(lambda leaf: leaf[:at])
    second = call.batched(lambda leaf: leaf[at:])
    return first.split(CHUNK), second.split(CHUNK)


def _whole(call: Call, at: int) -> tuple[list[Call], list[Call]]:
    """Like `_cut`, where batches cannot be cut: what reaches over the border fits."""
    return ([call], []) if at > 0 else ([], [call])


def _joined(calls: list[Call]) -> list[Call]:
    """Small calls put together to calls of about `CHUNK` samples."""
    joined: list[list[Call]] = [[]]
    for call in calls:
        if joined[-1] and sum(one.batch_size for one in joined[-1]) + call.batch_size > CHUNK:
            joined.append([])
        joined[-1].append(call)
    return [_together(some) for some in joined if some]


def _together(calls: list[Call]) -> Call:
    if len(calls) == 1:
        return calls[0]
    sizes = [call.batch_size for call in calls]
    leaves = [call.tensors for call in calls]
    merged = iter(
        [
            torch.cat(same) if same[0].ndim and same[0].shape[0] == sizes[0] else same[0]
            for same in zip(*leaves, strict=True)
        ]
    )
    return calls[0].mapped(lambda _leaf: next(merged))
