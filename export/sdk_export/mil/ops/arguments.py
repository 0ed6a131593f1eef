"""Between what a program holds (arrays) and what a kernel takes (ints, tensors)."""

from typing import Any

import numpy as np
import torch

from sdk_export.mil.weights import Array


def ints(values: Array | None, default: int = 0, count: int = 0) -> list[int]:
    """A vector of integers; `count` times the default where it is missing."""
    if values is None:
        return [default] * count
    return [int(value) for value in np.atleast_1d(values)]


def bools(values: Array | None, count: int) -> list[bool]:
    """A vector of booleans; all False where it is missing."""
    return [False] * count if values is None else [bool(value) for value in np.atleast_1d(values)]


def axes_of(axes: Array | None) -> tuple[int, ...] | None:
    """Axes of a reduction; None is all of them."""
    return None if axes is None else tuple(ints(axes))


def tensor(array: Array) -> torch.Tensor:
    """An array as a torch tensor, without a copy where torch can alias it."""
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def array(result: torch.Tensor) -> Array:
    """A torch tensor as an array."""
    return np.asarray(result.numpy())


def along(vector: Any, axis: int, rank: int) -> Array:
    """A vector laid along one axis of a tensor of that rank, ready to broadcast."""
    shape = [1] * rank
    shape[axis] = -1
    return np.asarray(vector).reshape(shape)
