"""Calls of a model: sample inputs and calibration data, whatever form they come in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sdk_runtimes.errors import SampleInputsError


@dataclass(frozen=True)
class Call:
    """What one call of `forward` is given.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors in it, flattened."""
        return [leaf for leaf in pytree.tree_leaves((self.args, dict(self.kwargs))) if _is_tensor(leaf)]

    @property
    def batch_size(self) -> int:
        """Size of the first axis of the first tensor that has one; 1 where there is none."""
        return next((tensor.shape[0] for tensor in self.tensors if tensor.ndim), 1)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Call":
        """The same call with every tensor changed."""
        args, kwargs = pytree.tree_map(
            lambda leaf: change(leaf) if _is_tensor(leaf) else leaf, (self.args, dict(self.kwargs))
        )
        return Call(args, kwargs)

    def batched(self, change: Callable[[Tensor], Tensor]) -> "Call":
        """The same call with every tensor changed whose first axis is the batch."""
        size = self.batch_size
        return self.mapped(lambda leaf: change(leaf) if leaf.ndim and leaf.shape[0] == size else leaf)

    def doubled(self) -> "Call":
        """A batch of at least two: torch.export takes an axis of size one for a constant."""
        if self.batch_size > 1:
            return self
        return self.batched(lambda leaf: torch.cat((leaf, leaf)))

    def split(self, size: int) -> list["Call"]:
        """Calls of at most `size` samples."""
        total = self.batch_size
        if total <= size:
            return [self]
        return [
            self.batched(lambda leaf, start=start: leaf[start : start + size])  # type: ignore[misc]  # bound now
            for start in range(0, total, size)
        ]


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, Tensor)


def _as_tensor(leaf: Any) -> Any:
    return torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf


def sample_call(sample_inputs: object, sample_kwargs: Mapping[str, Any] | None = None) -> Call:
    """Sample inputs as a call: a tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        SampleInputsError: there are none, or they hold no tensor.
    """
    given = as_call(sample_inputs, Call())
    call = Call(given.args, {**(sample_kwargs or {}), **given.kwargs})
    if not call.tensors:
        raise SampleInputsError(
            "no sample inputs"
            if sample_inputs is None
            else f"sample_inputs holds no tensor: {sample_inputs!r}",
            why="the model is traced on them",
            fix="sdk.prune(model, data, sample_inputs=(torch.randn(1, 3, 224, 224),), ratio=0.5)",
        )
    return call


def as_call(inputs: object, like: Call) -> Call:
    """One batch of calibration data as a call of the same form as the sample inputs.

    Args:
        inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments. What a
            loader gives beyond the arguments of the sample inputs (labels) is dropped.
        like: the sample call; its keyword arguments are kept where `inputs` has no others.
    """
    inputs = pytree.tree_map(_as_tensor, inputs)
    if isinstance(inputs, Mapping):
        return Call((), {**like.kwargs, **inputs})
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        if like.kwargs and not like.args:  # the sample's arguments have names, and these have the same order
            return Call((), {**like.kwargs, **dict(zip(like.kwargs, inputs, strict=False))})
        count = len(like.args) or len(inputs)
        return Call(tuple(inputs[:count]), like.kwargs)
    return Call((), like.kwargs)
