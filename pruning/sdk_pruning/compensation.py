"""Makes up for what goes: one walk over the graph, dense and pruned network side by side.

Every node is computed for all calibration data before the next one, in both networks. So when a layer's turn
comes, the features that the pruned network really has there are known, and its weights are solved for against
what the dense network computes on its own: errors of earlier layers are corrected on the way, and batch norms
see the features that they will see.

Values keep their dense shapes: a removed feature is still there, and the columns that would read it are zero.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from sdk_pruning.batch_norms import matched_statistics
from sdk_pruning.calls import Call
from sdk_pruning.compensators.mixing import mixed, mixing
from sdk_pruning.compensators.table import Compensator, find_compensator, none
from sdk_pruning.components import Consumer
from sdk_pruning.execution import Values, evaluate, last_readers, operation_name
from sdk_pruning.features import as_weight, columns_of, matrix_of, rows_of, taps_of
from sdk_pruning.groups import Group, Structure
from sdk_pruning.masking import masked
from sdk_pruning.means import can_have_bias, norm_after, takes_mean_up
from sdk_pruning.moments import Moments
from sdk_pruning.priors import Priors
from sdk_pruning.propagation import Use, bound_arguments
from sdk_pruning.removal import Removed, removal_of, staying
from sdk_pruning.statistics import SecondMoments, consumers_of, moment_sums, row_limit, rows_expected
from sdk_pruning.tracing import Traced

MAX_COLUMNS = 4608
"""Above, a convolution is compensated by mixing channels: solving for so many columns takes too long."""

Progress = Callable[[int, int], None]
Choose = Callable[[Group, list[Consumer]], tuple[int, ...]]
"""Units of a group that go, from the layers that read its features."""


@dataclass
class Compensation:
    """New values of tensors, in their dense shapes.

    Attributes:
        state: tensor name -> its value in the pruned network; removed slices hold no meaning.
        removed: group -> units that go.
        changed: tensors whose values are new.
        added_biases: weight -> bias of a layer that had none.
        ridges: weight -> the relative ridge that its solve took.
        rows: weight -> rows and columns of its moments, where there were fewer rows than columns.
    """

    state: dict[str, Tensor]
    removed: dict[str, tuple[int, ...]]
    changed: set[str] = field(default_factory=set)
    added_biases: dict[str, Tensor] = field(default_factory=dict)
    ridges: dict[str, float] = field(default_factory=dict)
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)


def compensate(
    traced: Traced,
    structure: Structure,
    state: Mapping[str, Tensor],
    removed: Removed,
    calls: Sequence[Call],
    *,
    choose: Choose | None = None,
    compensation: str = "ls",
    untouched: frozenset[str] = frozenset(),
    prior_weight: float = 0.0,
    progress: Progress | None = None,
) -> Compensation:
    """Walks through the network and solves for every layer that reads changed features.

    Args:
        traced: the dense graph.
        structure: its uses.
        state: dense tensors by name.
        removed: units that go, of groups for which this is decided already.
        calls: calibration data.
        choose: decides for the other groups when the first layer's turn comes that reads their features, from
            the features that the pruned network has there.
        compensation: a key of `COMPENSATORS`.
        untouched: weights whose values must stay.
        prior_weight: how much the variances of the training data count.
        progress: told (nodes done, nodes).
    """
    walk = _Walk(
        traced, structure, dict(state), removed, find_compensator(compensation), untouched, prior_weight
    )
    dense: list[Values] = [_start(traced, state, call) for call in calls]
    pruned: list[Values] = [dict(values) for values in dense]
    done = last_readers(traced)
    operations = traced.operations
    with torch.no_grad():
        for number, node in enumerate(operations):
            if choose is not None:
                walk.choose(node, operations[number:], dense, pruned, choose)
            walk.step(node, dense, pruned)
            for values in (*dense, *pruned):
                for name in done[node.name]:
                    values.pop(name, None)
            if progress is not None:
                progress(number + 1, len(operations))
    return walk.result


def _start(traced: Traced, state: Mapping[str, Tensor], call: Call) -> Values:
    feeds = {**traced.feeds(call), **traced.constants}
    return feeds | {name: state[target] for name, target in traced.state.items()}


class _Walk:
    """State of one walk."""

    def __init__(
        self,
        traced: Traced,
        structure: Structure,
        state: dict[str, Tensor],
        removed: Removed,
        compensator: Compensator,
        untouched: frozenset[str],
        prior_weight: float,
    ) -> None:
        self.traced, self.structure = traced, structure
        self.removal = removal_of(structure, removed)
        self.compensator, self.untouched = compensator, untouched
        self.result = Compensation(state, dict(removed))
        self._undecided: defaultdict[str, list[Group]] = defaultdict(list)
        for group in structure.groups:
            if group.name not in removed:  # uses stand in the order of the graph
                self._undecided[structure.findings.uses[group.uses[0]].node].append(group)
        self._placeholders = {target: name for name, target in traced.state.items()}
        self._uses: defaultdict[str, list[int]] = defaultdict(list)
        for number, use in enumerate(structure.findings.uses):
            self._uses[use.node].append(number)
        self._changed: set[str] = set()
        self.priors = Priors(traced, structure.findings.labels, dict(state), prior_weight)
        self._order = {node.name: number for number, node in enumerate(traced.graph.nodes)}

    def choose(
        self,
        node: fx.Node,
        ahead: Sequence[fx.Node],
        dense: Sequence[Values],
        pruned: Sequence[Values],
        choose: Choose,
    ) -> None:
        """Decides for the groups whose features this node is the first to read."""
        groups = self._undecided.pop(node.name, [])
        if not groups:
            return
        numbers = {number for group in groups for number in group.uses}
        last = max(self._order[self.structure.findings.uses[number].node] for number in numbers)
        stretch = [one for one in ahead if self._order[one.name] <= last]
        moments = SecondMoments(self.traced, self.structure, numbers, len(pruned), self.priors)
        for seed, (ours, theirs) in enumerate(zip(dense, pruned, strict=True)):
            self._look_ahead(stretch, (dict(ours), dict(theirs)), moments, seed)
        fits = moments.finish(self.result.state)
        for group in groups:
            consumers = consumers_of(group, self.traced, self.structure, self.result.state, fits)
            self.result.removed[group.name] = choose(group, consumers)
        self.removal = removal_of(self.structure, self.result.removed)

    def _look_ahead(
        self, stretch: Sequence[fx.Node], sides: tuple[Values, Values], moments: SecondMoments, seed: int
    ) -> None:
        """Runs on with layers that are not compensated yet, as far as the last that reads the features."""
        needed: Counter[str] = Counter(used.name for node in stretch for used in node.all_input_nodes)
        for node in stretch:
            moments.look(node, *sides, self.result.state, seed)
            for values in sides:
                if node is not stretch[-1]:
                    values[node.name] = evaluate(node, values)
            for used in node.all_input_nodes:
                needed[used.name] -= 1
                if not needed[used.name]:
                    for values in sides:
                        values.pop(used.name, None)

    def step(self, node: fx.Node, dense: list[Values], pruned: list[Values]) -> None:
        """Computes one node in both networks."""
        affected = any(
            theirs.get(used.name) is not ours.get(used.name)
            for used in node.all_input_nodes
            for ours, theirs in zip(dense[:1], pruned[:1], strict=True)
        )
        shift = None
        masks: list[tuple[str, int, tuple[int, ...]]] = []
        for number in self._uses.get(node.name, ()):
            use = self.structure.findings.uses[number]
            gone = self.removal.masks.get(number, ())
            if use.weight is None:
                masks += [(use.features, use.axis, gone)] if gone else []
            elif gone or affected:
                shift = self._solve(node, use, gone, dense, pruned)
        if operation_name(node) == "batch_norm" and affected:
            self._renormalise(node, dense, pruned)
        affected = affected or bool(masks) or any(used.name in self._changed for used in node.all_input_nodes)
        for ours, theirs in zip(dense, pruned, strict=True):
            result = evaluate(node, ours)
            ours[node.name] = result
            if affected:
                seen = theirs | {name: masked(theirs[name], axis, gone) for name, axis, gone in masks}
                result = evaluate(node, seen)
                if shift is not None:
                    result = result + shift.reshape(-1, *(1,) * (result.ndim - 2 if _spatial(node) else 0))
            theirs[node.name] = result

    def _solve(
        self, node: fx.Node, use: Use, gone: tuple[int, ...], dense: list[Values], pruned: list[Values]
    ) -> Tensor | None:
        """Sets the weight of a layer; returns what must be added to its output where it has no bias."""
        assert use.weight is not None, "a product has nothing to solve for"
        weight = self.result.state[use.weight]
        if use.weight in self.untouched:
            return None
        by_channel = use.kind == "transposed_conv" or matrix_of(use, weight).shape[1] > MAX_COLUMNS
        moments = self._moments(node, use, dense, pruned, by_channel=by_channel)
        kept = staying(dense[0][use.features].shape[use.axis], gone)
        if by_channel:
            masked_weight = weight.index_fill(use.weight_axis, torch.tensor(gone, dtype=torch.int64), 0)
            mixes = self.compensator is not none
            self._set(use.weight, self._mixed(use, weight, kept, moments) if mixes else masked_weight, pruned)
            return None
        centred = takes_mean_up(self.traced, use, self.structure.owners)
        taps = taps_of(use, weight)
        columns = columns_of(tuple(kept.tolist()), taps)
        matrix = matrix_of(use, weight)
        prior = self.priors.of(use, taps)
        found = self.compensator(matrix, columns, moments, centred=centred, taps=taps, prior=prior)
        self.result.ridges[use.weight] = found.ridge
        if moments.count < len(columns):
            self.result.rows[use.weight] = (moments.count, len(columns))
        full = torch.zeros_like(matrix)
        full[:, columns] = found.weight
        self._set(use.weight, as_weight(full, use, weight), pruned)
        return self._shift(use, found.bias_shift.to(weight.dtype), pruned)

    def _moments(
        self, node: fx.Node, use: Use, dense: list[Values], pruned: list[Values], *, by_channel: bool
    ) -> Moments:
        weight = None if by_channel or use.weight is None else self.result.state[use.weight]
        read = use if weight is not None else Use(use.node, "channels", use.features, use.axis, use.columns)
        columns = dense[0][use.features].shape[use.axis] * taps_of(read, weight)
        limit = row_limit(columns, len(dense))
        sums = moment_sums(columns, rows_expected(dense[0][use.features], use.axis, len(dense), limit))
        for seed, (ours, theirs) in enumerate(zip(dense, pruned, strict=True)):
            rows = [
                rows_of(node, read, values[use.features], weight, limit=limit, seed=seed)
                for values in ((ours,) if ours[use.features] is theirs[use.features] else (ours, theirs))
            ]
            sums.add(rows[0], rows[-1])
        return sums.finish()

    def _mixed(self, use: Use, weight: Tensor, kept: Tensor, moments: Moments) -> Tensor:
        mixture = mixing(kept, moments, centred=False)
        full = torch.zeros_like(weight, dtype=torch.float64)
        new = mixed(weight.double(), mixture, use.weight_axis)
        return full.index_copy(use.weight_axis, kept, new).to(weight.dtype)

    def _shift(self, use: Use, shift: Tensor, pruned: list[Values]) -> Tensor | None:
        if norm_after(self.traced, use.node) is not None and use.bias is None:
            return None  # the batch norm takes it up
        if use.bias is not None:
            self._set(use.bias, self.result.state[use.bias] + shift, pruned)
            return None
        if can_have_bias(use, self.structure.owners) and bool(shift.any()):
            assert use.weight is not None, "only layers have biases"
            self.result.added_biases[use.weight] = shift
            return shift
        return None

    def _set(self, name: str, value: Tensor, pruned: list[Values]) -> None:
        self.result.state[name] = value
        self.result.changed.add(name)
        placeholder = self._placeholders[name]
        self._changed.add(placeholder)
        for values in pruned:
            values[placeholder] = value

    def _renormalise(self, node: fx.Node, dense: list[Values], pruned: list[Values]) -> None:
        given = bound_arguments(node)
        features = given["input"].name
        targets = [given[name] for name in ("running_mean", "running_var")]
        if not all(isinstance(target, fx.Node) and target.name in self.traced.state for target in targets):
            return
        names = [self.traced.state[target.name] for target in targets]
        if not self.untouched.isdisjoint(names):
            return
        old = [self.result.state[name] for name in names]
        new = matched_statistics(
            old[0],
            old[1],
            [values[features] for values in dense],
            [values[features] for values in pruned],
        )
        for name, value in zip(names, new, strict=True):
            self._set(name, value, pruned)


def _spatial(node: fx.Node) -> bool:
    return operation_name(node).startswith("conv")
