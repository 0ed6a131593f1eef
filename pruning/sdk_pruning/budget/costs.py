"""What a plan costs, as a sum over layers, quick to evaluate after small changes."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from sdk_pruning.layers import Layer, Widths

LayerCost = Callable[[Layer, int, int], float]
"""(layer, input channels, output channels) -> cost."""


class Costs:
    """Cost of layers as a function of the groups' widths.

    A layer's cost depends on the widths of its input groups and of its output groups together, so the costs
    of two groups do not simply add up.

    Args:
        layers: those that cost something.
        of: cost of one layer; asked once for every pair of channel counts.
        constant: what remains whatever the widths.
    """

    def __init__(self, layers: Sequence[Layer], of: LayerCost, constant: float = 0.0) -> None:
        self._layers = tuple(layers)
        self._of = of
        self._constant = constant
        self._groups = [sorted({**layer.inputs.per_unit, **layer.outputs.per_unit}) for layer in self._layers]
        self._known: list[dict[tuple[int, ...], float]] = [{} for _ in self._layers]  # by the groups' widths
        self._touched: dict[str, set[int]] = defaultdict(set)
        for index, groups in enumerate(self._groups):
            for group in groups:
                self._touched[group].add(index)

    def total(self, widths: Widths) -> float:
        """Cost at these widths."""
        return self._constant + sum(self._layer(index, widths) for index in range(len(self._layers)))

    def change(self, widths: Widths, changes: Mapping[str, int]) -> float:
        """By how much the cost rises when some groups get other widths."""
        after = {**widths, **changes}
        touched = sorted(set().union(*(self._touched.get(group, set()) for group in changes)))
        return sum([self._layer(index, after) - self._layer(index, widths) for index in touched])

    def meet(self, first: str, second: str) -> bool:
        """Whether a layer depends on both groups; if not, their changes add up."""
        return not self._touched[first].isdisjoint(self._touched[second])

    def _layer(self, index: int, widths: Widths) -> float:
        known = self._known[index]
        key = tuple([widths[group] for group in self._groups[index]])
        if key not in known:
            layer = self._layers[index]
            known[key] = self._of(layer, layer.inputs.at(widths), layer.outputs.at(widths))
        return known[key]


def flops_costs(layers: Sequence[Layer]) -> Costs:
    """FLOPs, as `sdk_pruning.layers.total_flops` counts them."""
    return Costs(layers, _flops)


def _flops(layer: Layer, inputs: int, outputs: int) -> float:
    return layer.flops_per_pair * outputs * (1 if layer.depthwise else inputs)
