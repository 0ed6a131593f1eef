"""Second moments of everything that prunable features flow into, and the consumers that selectors see."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from sdk_pruning.calls import Call
from sdk_pruning.compensators.least_squares import least_squares
from sdk_pruning.components import Consumer
from sdk_pruning.execution import Values, run
from sdk_pruning.features import columns_of, matrix_of, rows_of, score_second, taps_of
from sdk_pruning.groups import Group, Structure
from sdk_pruning.means import norm_after, takes_mean_up
from sdk_pruning.moments import Moments, MomentSums
from sdk_pruning.priors import Priors
from sdk_pruning.propagation import Use, bound_arguments
from sdk_pruning.tracing import Traced

ROWS = 32768
ROWS_PER_COLUMN = 6
"""Rows that a moment is taken from: enough for its columns, and not more than that."""

FEW = 4
"""Of fewer rows than four times the columns, directions that the rows happen to lack would seem free to drop:
such moments are shrunk."""


def shrunk(second: Tensor, rows: int) -> Tensor:
    """Oracle approximating shrinkage towards a multiple of the identity (Chen et al. 2010, eq. 23).

    Args:
        second: float64 (N, N).
        rows: it was estimated from.
    """
    size = len(second)
    trace, square = second.trace(), second.square().sum()
    spread = square - trace.square() / size
    if not spread > 0:
        return second
    wanted = ((1 - 2 / size) * square + trace.square()) / ((rows + 1 - 2 / size) * spread)
    share = float(wanted.clamp(0, 1))
    return (1 - share) * second + share * trace / size * torch.eye(size).to(second)


JUDGED_BELOW = 6
"""Of fewer rows than six times the columns, the ridge is chosen by cross-validation on two halves."""


def moment_sums(columns: int, rows: int) -> MomentSums:
    """Sums for features of so many columns; in halves where so few rows make the ridge matter."""
    return MomentSums(halves=rows < JUDGED_BELOW * columns)


def rows_expected(features: Tensor, axis: int, calls: int, limit: int) -> int:
    """Rows that all calls together will give, from the features of one of them."""
    return min(features.numel() // features.shape[axis], limit) * calls


def row_limit(columns: int, calls: int) -> int:
    """Rows that one of several calls contributes to a moment of so many columns."""
    return -(-max(ROWS, ROWS_PER_COLUMN * columns) // calls)


@dataclass(frozen=True)
class Fit:
    """A layer before anything of the group goes.

    Attributes:
        weight: float64 (m, N): that best computes the dense network's output from the features there are,
            since E‖W u − W' v‖² = const. + E‖(W* − W') v‖² for the best W*.
        second: E[v vᵀ], float64 (N, N); the covariance where the mean is taken up after the layer.
        mean: E[v], float64 (N,); zeros where the second moment is raw.
    """

    weight: Tensor
    second: Tensor
    mean: Tensor


class SecondMoments:
    """Second moments of some uses, summed up while a graph runs.

    Args:
        traced: the graph.
        structure: names the uses.
        numbers: of the uses that count.
        calls: how many calls there will be.
        priors: what the training data showed.
    """

    def __init__(
        self, traced: Traced, structure: Structure, numbers: Iterable[int], calls: int, priors: Priors
    ) -> None:
        self._priors = priors
        self._traced, self._structure, self._calls = traced, structure, calls
        self._by_node: defaultdict[str, list[int]] = defaultdict(list)
        self._sums: dict[int, MomentSums | None] = {}  # made when their size is seen
        self._scores: dict[int, Tensor] = {}
        for number in sorted(numbers):
            use = structure.findings.uses[number]
            self._by_node[use.node].append(number)
            if use.kind != "product":
                self._sums[number] = None

    def look(
        self, node: fx.Node, dense: Values, pruned: Values | None, state: Mapping[str, Tensor], seed: int
    ) -> None:
        """Adds what a node is about to read, in the dense network and in the pruned one."""
        values = dense if pruned is None else pruned
        for number in self._by_node.get(node.name, ()):
            use = self._structure.findings.uses[number]
            if use.kind == "product":
                seen = _scores(node, use.features, values)
                self._scores[number] = self._scores[number] + seen if number in self._scores else seen
                continue
            weight = state[use.weight] if use.weight else None
            columns = values[use.features].shape[use.axis] * taps_of(use, weight)
            limit = row_limit(columns, self._calls)
            rows = [
                rows_of(node, use, side[use.features], weight, limit=limit, seed=seed)
                for side in (dense, pruned)
                if side is not None
            ]
            sums = self._sums[number]
            if sums is None:
                expected = rows_expected(values[use.features], use.axis, self._calls, limit)
                sums = self._sums[number] = moment_sums(columns, expected)
            sums.add(*rows)

    def finish(self, state: Mapping[str, Tensor]) -> dict[int, Fit]:
        """Number of use -> the layer as it would best be on the features that there are."""
        fits = {}
        for number, score in self._scores.items():
            ones, zeros = torch.ones(1, len(score)).double(), torch.zeros(len(score)).double()
            fits[number] = Fit(ones, score / self._calls, zeros)
        for number, total in self._sums.items():
            assert total is not None, "every use is reached"
            fits[number] = self._fit(self._structure.findings.uses[number], total.finish(), state)
        return fits

    def _fit(self, use: Use, moments: Moments, state: Mapping[str, Tensor]) -> Fit:
        centred = takes_mean_up(self._traced, use, self._structure.owners)
        second = moments.pruned_second(centred=centred)
        taps = taps_of(use, state[use.weight]) if use.weight else 1
        prior = self._priors.of(use, taps)
        if prior is not None:
            second = second + prior.diag()
        elif moments.count < FEW * len(second):
            second = shrunk(second, moments.count)
        mean = moments.mean_pruned if centred else torch.zeros(len(second), dtype=torch.float64)
        if use.weight is None:
            return Fit(torch.zeros(0, len(second), dtype=torch.float64), second, mean)
        matrix = matrix_of(use, state[use.weight])
        if moments.cross is not moments.pruned:
            everything = torch.arange(matrix.shape[1])
            matrix = least_squares(matrix, everything, moments, centred=centred, prior=prior).weight
        return Fit(matrix, second, mean)


def _scores(node: fx.Node, query: str, values: Values) -> Tensor:
    given = bound_arguments(node)
    if "key" in given:
        return score_second(values[query], values[given["key"].name])
    other = given["other"] if "other" in given else given["mat2"]
    return score_second(values[query], values[other.name].transpose(-1, -2))


def dense_moments(
    traced: Traced,
    structure: Structure,
    state: Mapping[str, Tensor],
    calls: Sequence[Call],
    prior_weight: float = 0.0,
) -> dict[int, Fit]:
    """All layers that read groups' features, in the dense network, by number of use.

    Args:
        traced: the dense graph.
        structure: its groups say which uses count.
        state: parameter or buffer name -> tensor.
        calls: calibration data.
        prior_weight: how much the variances of the training data count.
    """
    numbers = {number for group in structure.groups for number in group.uses}
    priors = Priors(traced, structure.findings.labels, state, prior_weight)
    moments = SecondMoments(traced, structure, numbers, len(calls), priors)
    for seed, call in enumerate(calls):

        def look(node: fx.Node, values: Values, seed: int = seed) -> Values:
            moments.look(node, values, None, state, seed)
            return values

        run(traced, state, traced.feeds(call), view=look)
    return moments.finish(state)


def consumers_of(
    group: Group,
    traced: Traced,
    structure: Structure,
    state: Mapping[str, Tensor],
    fits: Mapping[int, Fit],
) -> list[Consumer]:
    """The layers that read a group's features, as a selector wants to see them.

    Outputs count as large as a batch norm after the layer makes them: what it scales down cannot matter much.
    """
    consumers = []
    for number in group.uses:
        use = structure.findings.uses[number]
        weight = state[use.weight] if use.weight else None
        taps = taps_of(use, weight)
        matrix = fits[number].weight
        norm = norm_after(traced, use.node)
        if norm is not None and len(matrix) == len(_gain(norm, traced, state)):
            matrix = matrix * _gain(norm, traced, state)[:, None]
        columns = tuple(columns_of(unit.columns.get(number, ()), taps) for unit in group.units)
        consumers.append(Consumer(use.weight or use.node, matrix, fits[number].second, columns, taps))
    return consumers


def _gain(norm: fx.Node, traced: Traced, state: Mapping[str, Tensor]) -> Tensor:
    """γ / σ of a batch norm, float64 (C,); empty where its tensors are not the model's own."""
    given = bound_arguments(norm)
    names = [traced.state.get(getattr(given[name], "name", "")) for name in ("weight", "running_var")]
    if names[0] is None or names[1] is None:
        return torch.ones(0, dtype=torch.float64)
    scale, variance = state[names[0]].double(), state[names[1]].double()
    gain: Tensor = scale / (variance + given["eps"]).sqrt()
    return gain
