"""What a layer reads, as rows of a matrix, and its weight as the matrix beside it: y = W u."""

from typing import Any

import torch
from torch import Tensor, fx

from sdk_pruning.moments import patches
from sdk_pruning.propagation import Use, bound_arguments


def taps_of(use: Use, weight: Tensor | None) -> int:
    """Columns that one channel has: k² for a convolution."""
    if use.kind != "conv" or weight is None:
        return 1
    return int(weight[0, 0].numel())


def rows_of(
    node: fx.Node, use: Use, features: Tensor, weight: Tensor | None, *, limit: int, seed: int
) -> Tensor:
    """Features as (samples, N), columns ordered (channel, tap).

    Args:
        node: that reads them.
        use: says how.
        features: as they are in the graph.
        weight: of a convolution, for the size of its kernel.
        limit: at most so many rows, evenly drawn.
        seed: of the draw; the same draws the same rows.
    """
    if use.kind == "conv":
        assert weight is not None, "a convolution has a weight"
        given = bound_arguments(node)
        return patches(
            features,
            weight.shape[2:],
            _numbers(given["stride"]),
            given["padding"] if isinstance(given["padding"], str) else _numbers(given["padding"]),
            _numbers(given["dilation"]),
            limit=limit,
            seed=seed,
        )
    rows = features.movedim(use.axis, -1).reshape(-1, features.shape[use.axis])
    if len(rows) <= limit:
        return rows
    generator = torch.Generator().manual_seed(seed)
    return rows[torch.randperm(len(rows), generator=generator)[:limit].sort().values]


def _numbers(value: Any) -> Any:
    return tuple(int(item) for item in value) if isinstance(value, list | tuple) else int(value)


def matrix_of(use: Use, weight: Tensor) -> Tensor:
    """The weight as float64 (m, N).

    Of a transposed convolution, whose taps each read single channels, outputs times taps are the rows.
    """
    wide = weight.detach().double()
    if use.kind == "transposed_conv":
        return wide.flatten(1).T
    return wide.movedim(use.weight_axis, 1).flatten(1)


def as_weight(matrix: Tensor, use: Use, weight: Tensor) -> Tensor:
    """What `matrix_of` made of a weight, in the weight's own shape and dtype again."""
    if use.kind == "transposed_conv":
        return matrix.T.reshape(weight.shape).to(weight.dtype).contiguous()
    moved = weight.movedim(use.weight_axis, 1)
    return matrix.reshape(moved.shape).movedim(1, use.weight_axis).to(weight.dtype).contiguous()


def columns_of(positions: tuple[int, ...], taps: int) -> Tensor:
    """Positions of channels as columns, int64."""
    channels = torch.tensor(positions, dtype=torch.int64)
    return (channels[:, None] * taps + torch.arange(taps)).flatten()


def score_second(query: Tensor, key: Tensor) -> Tensor:
    """Second moment of the terms q_d k_d that a score is the sum of, float64 (D, D).

    Q_dd' = Σ E[q_d q_d'] E[k_d k_d'] over samples and heads.

    Args:
        query: (…, L, D).
        key: (…, S, D).
    """
    ours, theirs = query.double(), key.double()
    own = ours.transpose(-1, -2) @ ours / ours.shape[-2]
    other = theirs.transpose(-1, -2) @ theirs / theirs.shape[-2]
    if other.shape[:-2] != own.shape[:-2]:  # key heads that several query heads share
        other = other.repeat_interleave(own.shape[-3] // other.shape[-3], dim=-3)
    return (own * other).flatten(0, -3).mean(0)
