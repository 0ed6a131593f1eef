"""How much each feature varied on the training data: batch norms remember.

A few dozen calibration inputs leave many features of late layers still. To a Gram matrix these look free to
drop and free to build from others, and networks pruned on it fall apart on the next photograph. But a batch
norm's output had mean β and standard deviation γ over the training data, so the variance of what is computed
from it follows, channel by channel, without any data.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from sdk_pruning.axis_labels import Labels
from sdk_pruning.batch_norms import Part, combined, part_of
from sdk_pruning.calls import Call
from sdk_pruning.execution import Values, evaluate, operation_name, run
from sdk_pruning.propagation import Use, bound_arguments
from sdk_pruning.rules import elementwise
from sdk_pruning.tracing import Traced

DRAWS = 1024
_DEPTH = 64
"""Residual trunks add up many norms; further back nothing is followed."""
_POOLS = ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
_PASSING = (*elementwise.RULES, *_POOLS, "cat", "flatten", "view", "reshape", "getitem")


def training_variance(
    traced: Traced, labels: Mapping[str, object], state: Mapping[str, Tensor], name: str, seed: int = 0
) -> Tensor | None:
    """Variance of each channel (axis 1) of a node's result over the training data, float64 (C,).

    Batch norms are taken for normal and independent of each other.

    Args:
        traced: the graph.
        labels: of the walk over it.
        state: parameter or buffer name -> tensor.
        name: of the node.
        seed: of the draws.

    Returns:
        None where something other than batch norms and elementwise operations on them feeds the node.
    """
    found = labels.get(name)
    if not isinstance(found, Labels) or len(found.shape) < 2:
        return None
    nodes = {node.name: node for node in traced.graph.nodes}
    wanted = _between(nodes[name], traced)
    if wanted is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    values: Values = {}
    for node in traced.graph.nodes:
        if node.name in wanted:
            values[node.name] = _drawn(node, traced, state, labels, values, generator)
            if values[node.name] is None:
                return None
    drawn = values[name]
    if not isinstance(drawn, Tensor) or drawn.ndim < 2 or drawn.shape[1] != found.shape[1]:
        return None
    return drawn.double().transpose(0, 1).flatten(1).var(1)


def _between(node: fx.Node, traced: Traced) -> set[str] | None:
    """The node and what it is computed from, back to batch norms; None if there is anything else."""
    wanted: set[str] = set()
    todo = [node]
    while todo:
        one = todo.pop()
        if one.name in wanted:
            continue
        wanted.add(one.name)
        if len(wanted) > _DEPTH * 8:
            return None
        if one.op != "call_function":
            if one.name in traced.state:
                continue
            return None
        name = operation_name(one)
        if name == "batch_norm":
            continue
        if name not in _PASSING:
            return None
        todo += one.all_input_nodes
    return wanted


def _drawn(
    node: fx.Node,
    traced: Traced,
    state: Mapping[str, Tensor],
    labels: Mapping[str, object],
    values: Values,
    generator: torch.Generator,
) -> Tensor | None:
    if node.op != "call_function":
        return state[traced.state[node.name]]
    if operation_name(node) == "batch_norm":
        return _normal(node, traced, state, labels, generator)
    try:
        result = evaluate(node, values)
    except (RuntimeError, TypeError, KeyError, IndexError):  # a size in it fits the true shapes only
        return None
    return result if isinstance(result, Tensor) else None


def _normal(
    node: fx.Node,
    traced: Traced,
    state: Mapping[str, Tensor],
    labels: Mapping[str, object],
    generator: torch.Generator,
) -> Tensor | None:
    given = bound_arguments(node)
    names = [traced.state.get(getattr(given[name], "name", "")) for name in ("weight", "bias")]
    found = labels[node.name]
    if names[0] is None or names[1] is None or not isinstance(found, Labels):
        return None
    shape = (1, -1, *(1,) * (len(found.shape) - 2))
    scale, mean = (state[name].reshape(shape) for name in names if name is not None)
    draws = torch.randn(DRAWS, found.shape[1], *(1,) * (len(found.shape) - 2), generator=generator)
    return mean + scale.abs() * draws


STRENGTH = 5.0
"""Times the mismatch: how much a training variance counts. Measured: EfficientNet-Lite0 with a dozen
photographs has a mismatch of 0.1 and does best at 0.5 (of 0, 0.1, 0.5, 2); digits networks with training
images have 0.001 and do best without."""

NEGLIGIBLE = 0.05
"""Below, the calibration data are taken to be like the training data."""


def mismatch(traced: Traced, state: Mapping[str, Tensor], calls: Sequence[Call]) -> float:
    """How far calibration data are from the training data, as batch norms see it.

    The Kullback-Leibler divergence of a normal distribution with the calibration data's mean and variance
    from one with the running statistics, mean over all channels of all batch norms; 0 where there are none.

    Args:
        traced: the graph.
        state: dense tensors by name.
        calls: calibration data.
    """
    inputs: defaultdict[str, list[Part]] = defaultdict(list)
    running: dict[str, tuple[Tensor, Tensor]] = {}

    def look(node: fx.Node, values: Values) -> Values:
        if operation_name(node) == "batch_norm":
            given = bound_arguments(node)
            names = [
                traced.state.get(getattr(given[name], "name", "")) for name in ("running_mean", "running_var")
            ]
            if names[0] is not None and names[1] is not None:
                inputs[node.name].append(part_of(values[given["input"].name]))
                running[node.name] = (state[names[0]].double(), state[names[1]].double() + given["eps"])
        return values

    for call in calls:
        run(traced, state, traced.feeds(call), view=look)
    found = [_divergence(parts, *running[name]) for name, parts in inputs.items()]
    return sum(found) / len(found) if found else 0.0


def _divergence(parts: list[Part], mean: Tensor, variance: Tensor) -> float:
    here, spread = combined(parts)
    ratio = spread / variance
    return float((((here - mean).square() / variance + ratio - 1 - ratio.clamp_min(1e-6).log()) / 2).mean())


class Priors:
    """Training variances of what uses read, each found once.

    Args:
        traced: the graph.
        labels: of the walk over it.
        state: dense tensors by name.
        weight: how much they count.
    """

    def __init__(
        self, traced: Traced, labels: Mapping[str, object], state: Mapping[str, Tensor], weight: float
    ) -> None:
        self._traced, self._labels, self._state, self._weight = traced, labels, state, weight
        self._known: dict[str, Tensor | None] = {}

    def of(self, use: Use, taps: int) -> Tensor | None:
        """Weighted variance of each column that a use reads, float64 (N,); None where it is not known."""
        if use.axis != 1 or self._weight < NEGLIGIBLE:
            return None
        if use.features not in self._known:
            found = training_variance(self._traced, self._labels, self._state, use.features)
            self._known[use.features] = found
        variance = self._known[use.features]
        return None if variance is None else self._weight * variance.repeat_interleave(taps)


def weight_of(found: float) -> float:
    """How much training variances count at a mismatch."""
    return min(1.0, STRENGTH * found)
