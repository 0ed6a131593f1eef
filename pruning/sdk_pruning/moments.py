"""First and second moments of a layer's inputs, summed up over calibration batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sdk_runtimes.errors import ArgumentError

_CHUNK = 8192
"""Rows of one matrix product in single precision; sums of chunks are double."""


@dataclass(frozen=True)
class Moments:
    """Of u, features of the dense network, and v, those of the network whose earlier layers are pruned.

    Attributes:
        count: samples, or positions.
        mean_dense: E[u], float64 (N,).
        mean_pruned: E[v], float64 (N,).
        pruned: E[v vᵀ], float64 (N, N), raw.
        cross: E[u vᵀ], float64 (N, N), raw.
        halves: the same of two halves of the samples, by which a ridge can be judged; empty where not kept.
    """

    count: int
    mean_dense: Tensor
    mean_pruned: Tensor
    pruned: Tensor
    cross: Tensor
    halves: "tuple[Moments, ...]" = ()

    def pruned_second(self, *, centred: bool, columns: Tensor | None = None) -> Tensor:
        """E[v vᵀ], or the covariance of v, of some columns or all: (n, n)."""
        second, mean = self.pruned, self.mean_pruned
        if columns is not None:
            second, mean = second[columns][:, columns], mean[columns]
        return second - torch.outer(mean, mean) if centred else second

    def cross_second(self, *, centred: bool, columns: Tensor | None = None) -> Tensor:
        """E[u vᵀ], or the covariance of u with v, of some columns of v or all: (N, n)."""
        second, mean = self.cross, self.mean_pruned
        if columns is not None:
            second, mean = second[:, columns], mean[columns]
        return second - torch.outer(self.mean_dense, mean) if centred else second


class MomentSums:
    """Adds batches up.

    Products run in single precision on what differs from the first batch's mean, so that a large mean cannot
    drown the covariance; everything is summed in double.

    Args:
        halves: keep the first and the second half of every batch apart as well (twice the memory).
    """

    def __init__(self, *, halves: bool = True) -> None:
        self._parts = (_Sums(), _Sums()) if halves else (_Sums(),)

    @property
    def count(self) -> int:
        """Samples so far."""
        return sum(part.count for part in self._parts)

    def add(self, u: Tensor, v: Tensor | None = None) -> None:
        """One batch.

        Args:
            u: dense features, (samples, N), samples of one image or sentence together.
            v: features of the pruned network, (samples, N); None where they are u.

        Raises:
            ArgumentError: shapes differ, or are not those of earlier batches.
        """
        _check(u, v)
        cut = len(u) // 2 if len(self._parts) > 1 else len(u)
        # An odd sample goes to the smaller half; otherwise single samples would all go to one.
        if len(self._parts) > 1 and len(u) % 2 and self._parts[0].count <= self._parts[1].count:
            cut += 1
        for part, rows in zip(self._parts, (slice(None, cut), slice(cut, None)), strict=False):
            if len(u[rows]):
                part.add(u[rows], None if v is None else v[rows])

    def finish(self) -> Moments:
        """The moments of all batches.

        Raises:
            ArgumentError: nothing was added.
        """
        filled = [part.finish() for part in self._parts if part.count]
        if not filled:
            raise ArgumentError(
                "moments of no samples", why="no batch reached this layer", fix="pass calibration data"
            )
        return filled[0] if len(filled) == 1 else _together(filled[0], filled[1])


class _Sums:
    """Sums about a shift, the mean of the first batch."""

    def __init__(self) -> None:
        self.count = 0
        self._shifts: tuple[Tensor, Tensor]
        self._sums: tuple[Tensor, Tensor]
        self._pruned: Tensor
        self._cross: Tensor | None

    def add(self, u: Tensor, v: Tensor | None) -> None:
        if not self.count:
            self._start(u, v)
        if u.shape[1] != len(self._shifts[0]) or (v is None) != (self._cross is None):
            raise ArgumentError(
                f"a batch of {tuple(u.shape)} after batches of {len(self._shifts[0])} features",
                why="all batches of one layer need the same features, with or without a pruned twin",
                fix="use one MomentSums for each layer",
            )
        for start in range(0, len(u), _CHUNK):
            rows = slice(start, start + _CHUNK)
            self._add_chunk(u[rows], None if v is None else v[rows])

    def _start(self, u: Tensor, v: Tensor | None) -> None:
        columns = u.shape[1]
        shift = u.mean(0, dtype=torch.float64)
        self._shifts = (shift, shift if v is None else v.mean(0, dtype=torch.float64))
        zeros = torch.zeros(columns, dtype=torch.float64)
        self._sums = (zeros, zeros if v is None else zeros.clone())
        self._pruned = torch.zeros(columns, columns, dtype=torch.float64)
        self._cross = None if v is None else torch.zeros_like(self._pruned)

    def _add_chunk(self, u: Tensor, v: Tensor | None) -> None:
        self.count += len(u)
        dense = _about(u, self._shifts[0])
        self._sums[0].add_(dense.sum(0, dtype=torch.float64))
        if v is None or self._cross is None:
            self._pruned += dense.T @ dense
            return
        pruned = _about(v, self._shifts[1])
        self._sums[1].add_(pruned.sum(0, dtype=torch.float64))
        self._pruned += pruned.T @ pruned
        self._cross += dense.T @ pruned

    def finish(self) -> Moments:
        (shift_u, shift_v), (sum_u, sum_v) = self._shifts, (total / self.count for total in self._sums)
        pruned = _raw(self._pruned / self.count, shift_v, sum_v, shift_v, sum_v)
        cross = (
            pruned if self._cross is None else _raw(self._cross / self.count, shift_u, sum_u, shift_v, sum_v)
        )
        return Moments(self.count, shift_u + sum_u, shift_v + sum_v, pruned, cross)


def _raw(second: Tensor, shift_u: Tensor, mean_u: Tensor, shift_v: Tensor, mean_v: Tensor) -> Tensor:
    """E[u vᵀ] from E[(u − a)(v − b)ᵀ], a, b, and the means of u − a and v − b."""
    return (
        second + torch.outer(shift_u, mean_v) + torch.outer(mean_u, shift_v) + torch.outer(shift_u, shift_v)
    )


def _about(x: Tensor, shift: Tensor) -> Tensor:
    """Less the shift, in single precision at least."""
    wide = x.detach().cpu() if x.dtype == torch.float64 else x.detach().cpu().float()
    return wide - shift.to(wide.dtype)


def _together(a: Moments, b: Moments) -> Moments:
    count = a.count + b.count
    left, right = a.count / count, b.count / count
    pruned = a.pruned * left + b.pruned * right
    return Moments(
        count,
        a.mean_dense * left + b.mean_dense * right,
        a.mean_pruned * left + b.mean_pruned * right,
        pruned,
        pruned if a.cross is a.pruned else a.cross * left + b.cross * right,
        (a, b),
    )


def _check(u: Tensor, v: Tensor | None) -> None:
    if u.ndim != 2 or (v is not None and v.shape != u.shape):
        raise ArgumentError(
            f"features of shape {tuple(u.shape)}" + ("" if v is None else f" and {tuple(v.shape)}"),
            why="moments are of (samples, features), the same in both networks",
            fix="flatten to two dimensions; `patches` does so for convolutions",
        )


def patches(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int | str = 0,
    dilation: Sequence[int] | int = 1,
    *,
    padding_mode: str = "zeros",
    limit: int | None = None,
    seed: int = 0,
) -> Tensor:
    """What a convolution reads, as rows (im2col): y = patches @ weight.flatten(1).T.

    Args:
        x: (batch, channels, *spatial), one to three spatial dimensions.
        kernel: its size, one number a spatial dimension.
        stride: of the convolution.
        padding: of the convolution; also "same" and "valid".
        dilation: of the convolution.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        limit: at most so many positions, drawn evenly and without replacement; None for all. The same seed
            draws the same positions of inputs of the same shape.
        seed: of that draw.

    Returns:
        (positions, channels · k²), columns ordered (channel, tap), rows ordered (sample, position).
    """
    dims = len(kernel)
    strides, dilations = _each(stride, dims), _each(dilation, dims)
    windows = _pad(x, kernel, padding, dilations, padding_mode)
    for dim, (size, step, hole) in enumerate(zip(kernel, strides, dilations, strict=True)):
        windows = windows.unfold(2 + dim, hole * (size - 1) + 1, step)[..., ::hole]
    # (batch, channels, *positions, *taps) -> (batch, *positions, channels, *taps), still a view
    windows = windows.movedim(1, 1 + dims)
    rows = windows[_positions(windows.shape[: 1 + dims], limit, seed)]
    return rows.reshape(len(rows), -1)


def _each(value: Sequence[int] | int, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


def _pad(
    x: Tensor, kernel: Sequence[int], padding: Sequence[int] | int | str, dilation: Sequence[int], mode: str
) -> Tensor:
    if padding == "valid":
        return x
    if padding == "same":
        # As torch: an odd total puts the one more at the end.
        totals = [hole * (size - 1) for size, hole in zip(kernel, dilation, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        assert not isinstance(padding, str)
        sides = [(side, side) for side in _each(padding, len(kernel))]
    amounts = [amount for side in reversed(sides) for amount in side]
    if not any(amounts):
        return x
    return functional.pad(x, amounts, mode="constant" if mode == "zeros" else mode)


def _positions(shape: Sequence[int], limit: int | None, seed: int) -> tuple[Tensor, ...]:
    """Indices into (batch, *positions)."""
    total = int(torch.tensor(shape).prod())
    index = torch.arange(total)
    if limit is not None and limit < total:
        generator = torch.Generator().manual_seed(seed)
        index = torch.randperm(total, generator=generator)[:limit].sort().values
    return torch.unravel_index(index, tuple(shape))
