"""Predicted latency: a sum over layers, each measured alone on the target at a few widths.

What a layer takes inside the network differs from what it takes alone (warm caches, changes of layout at its
borders), and what is no layer takes time too. So the sum is fitted to whole networks: one factor and one
constant.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from sdk_pruning.budget.costs import Costs
from sdk_pruning.layers import Channels, Layer, Widths
from sdk_runtimes.errors import PruningError

Timer = Callable[[Sequence[tuple[nn.Module, Tensor]]], Sequence[float]]
"""Modules with their inputs -> milliseconds of each alone. Many at once: exporting one costs as much."""

Floats = npt.NDArray[np.float64]

SHARES = (0.25, 0.5, 1.0)
"""Widths at which a layer is measured, on either axis. With a fourth, 0.75, predictions of EfficientNet-Lite0
were no better (2 % off in the mean); with 0.25 and 1 alone 9 %."""


@dataclass(frozen=True)
class Grid:
    """Milliseconds of one layer on a grid of widths.

    Attributes:
        inputs: channel counts, ascending.
        outputs: channel counts, ascending.
        ms: (len(inputs), len(outputs)); one row where the layer is depthwise.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]

    def at(self, inputs: int, outputs: int) -> float:
        """Interpolated linearly on both axes; beyond the ends the last slope goes on, never below 0."""
        row, below = _place(self.inputs, inputs)
        column, left = _place(self.outputs, outputs)
        lines = [self.ms[row], self.ms[min(row + 1, len(self.ms) - 1)]]
        ends = [line[column] + (line[min(column + 1, len(line) - 1)] - line[column]) * left for line in lines]
        return max(0.0, ends[0] + (ends[1] - ends[0]) * below)


@dataclass(frozen=True)
class LatencyTable:
    """Predicts milliseconds at any widths.

    Attributes:
        layers: of the network.
        grids: layer name -> its measurements; layers that cannot stand alone have none.
        ms_per_flop: of the measured layers together, for those without a grid.
        block: channels are computed in blocks of so many, whether full or not.
        scale: what a layer takes in the network, as a multiple of what it takes alone.
        rest_ms: what the network takes beside its layers.
    """

    layers: tuple[Layer, ...]
    grids: Mapping[str, Grid]
    ms_per_flop: float
    block: int = 1
    scale: float = 1.0
    rest_ms: float = 0.0

    def layer_ms(self, layer: Layer, inputs: int, outputs: int) -> float:
        """Of one layer alone, not scaled."""
        grid = self.grids.get(layer.name)
        if grid is None:
            return self.ms_per_flop * layer.flops_per_pair * outputs * (1 if layer.depthwise else inputs)
        return grid.at(_up(inputs, self.block), _up(outputs, self.block))

    def costs(self) -> Costs:
        """For `uniform_for` and `allocate`: milliseconds."""
        return Costs(self.layers, lambda *layer: self.scale * self.layer_ms(*layer), constant=self.rest_ms)

    def predict_ms(self, widths: Widths) -> float:
        """Of the whole network."""
        return self.costs().total(widths)


def measure_table(
    layers: Sequence[Layer], dense: Widths, time_modules: Timer, *, block: int = 1
) -> LatencyTable:
    """Measures every layer alone at up to 3 × 3 widths; equal ones (`shape_key`) once.

    Args:
        layers: of the network; without `build` they are estimated from their FLOPs.
        dense: full width of every group.
        time_modules: times modules on the target.
        block: channels of one vector of the device; widths are measured at multiples of it.

    Raises:
        PruningError: no layer can stand alone.
    """
    axes = {layer.name: _axes(layer, dense, block) for layer in layers if layer.build}
    if not axes:
        raise PruningError(
            "no layer of this network can be timed alone",
            why="a latency is predicted from those of its layers",
            fix="pass target_flops or ratio",
        )
    wanted = {
        _key(layer, *at): (layer, at)
        for layer in layers
        if layer.name in axes
        for at in _points(layer, dense, axes[layer.name])
    }
    modules = [layer.build(*at) for layer, at in wanted.values() if layer.build]
    taken = dict(zip(wanted, time_modules(modules), strict=True))
    grids = {
        layer.name: _grid(layer, dense, axes[layer.name], taken) for layer in layers if layer.name in axes
    }
    built = [layer for layer in layers if layer.name in axes]
    total_ms = sum(taken[_key(layer, layer.inputs.at(dense), layer.outputs.at(dense))] for layer in built)
    return LatencyTable(tuple(layers), grids, total_ms / sum(layer.flops(dense) for layer in built), block)


def fitted(table: LatencyTable, measured: Sequence[tuple[Widths, float]]) -> LatencyTable:
    """The table with factor and constant fitted to whole networks, in relative least squares.

    The constant is fitted only where one network's layers take twice as long as another's: from networks that
    are near to each other noise makes most of it. (EfficientNet-Lite0 on ONNX Runtime, 8 plans: factor alone
    2 % off in the mean and 5 % at most; a constant of 0.5 ms from dense and 0.6 of it, 5 % and 15 %.)

    Args:
        table: measured layers.
        measured: widths and milliseconds of networks, at least one; those nearest to the target help most.
    """
    plain = replace(table, scale=1.0, rest_ms=0.0).costs()
    sums = np.array([plain.total(widths) for widths, _ in measured])
    ms = np.array([each for _, each in measured])
    if sums.min() < 0.5 * sums.max():
        (scale, rest), *_ = np.linalg.lstsq(
            np.stack([sums / ms, 1 / ms], axis=1), np.ones(len(ms)), rcond=None
        )
        if scale > 0 and rest >= 0:
            return replace(table, scale=float(scale), rest_ms=float(rest))
    shares = sums / ms
    return replace(table, scale=float(shares.sum() / (shares**2).sum()), rest_ms=0.0)


def _up(channels: int, block: int) -> int:
    return -(-channels // block) * block


def _place(axis: Sequence[int], at: int) -> tuple[int, float]:
    """Index of the grid point to the left of a value, and how far it is on the way to the next."""
    if len(axis) == 1:
        return 0, 0.0
    index = min(max(bisect_right(axis, at) - 1, 0), len(axis) - 2)
    return index, (at - axis[index]) / (axis[index + 1] - axis[index])


_Axes = tuple[tuple[int, ...], tuple[int, ...]]


def _axes(layer: Layer, dense: Widths, block: int) -> _Axes:
    """Channel counts, whole blocks, of the two axes."""
    outputs = _axis(layer.outputs, dense, block)
    return (outputs[-1:] if layer.depthwise else _axis(layer.inputs, dense, block)), outputs


def _axis(channels: Channels, dense: Widths, block: int) -> tuple[int, ...]:
    full = channels.at(dense)
    moving = full - channels.fixed
    shares = SHARES if moving else (1.0,)
    return tuple(sorted({_up(channels.fixed + max(1, round(moving * share)), block) for share in shares}))


def _points(layer: Layer, dense: Widths, axes: _Axes) -> list[tuple[int, int]]:
    """Channel counts to build the layer at; the topmost block is not full where the dense width is not."""
    full_in, full_out = layer.inputs.at(dense), layer.outputs.at(dense)
    if layer.depthwise:
        return [(min(each, full_out), min(each, full_out)) for each in axes[1]]
    return [(min(inputs, full_in), min(outputs, full_out)) for inputs in axes[0] for outputs in axes[1]]


def _key(layer: Layer, inputs: int, outputs: int) -> tuple[str, int, int]:
    return (layer.shape_key or layer.name, inputs, outputs)


def _grid(layer: Layer, dense: Widths, axes: _Axes, taken: Mapping[tuple[str, int, int], float]) -> Grid:
    ms = [taken[_key(layer, *at)] for at in _points(layer, dense, axes)]
    rising = _rising(_rising(np.array(ms).reshape(len(axes[0]), len(axes[1]))).T).T
    return Grid(axes[0], axes[1], tuple(tuple(map(float, row)) for row in rising))


def _rising(rows: Floats) -> Floats:
    """Rows that do not fall: a wider layer is not faster, and noise that says so would mislead the search."""
    up = np.maximum.accumulate(rows, axis=1)
    down = np.minimum.accumulate(rows[:, ::-1], axis=1)[:, ::-1]
    return (up + down) / 2
