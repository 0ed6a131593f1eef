"""The layers that cost something, as functions of how many units each group keeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

Widths = Mapping[str, int]
"""group name -> units kept."""


@dataclass(frozen=True)
class Channels:
    """How many channels an axis has: those that always stay, and some for every kept unit of some groups.

    Attributes:
        fixed: channels of no group.
        per_unit: group name -> channels that one of its units brings.
    """

    fixed: int
    per_unit: Mapping[str, int] = field(default_factory=dict)

    def at(self, widths: Widths) -> int:
        """The count at these widths."""
        return self.fixed + sum(count * widths[group] for group, count in self.per_unit.items())


@dataclass(frozen=True)
class Layer:
    """A convolution, a linear layer or an attention product.

    Attributes:
        name: of its weight or node; unique.
        inputs: channels it reads.
        outputs: channels it writes.
        flops_per_pair: FLOPs (2 a multiply-add) for one input and one output channel, at the sample inputs;
            a depthwise layer counts (outputs × 1) pairs.
        depthwise: one input channel an output channel.
        build: (inputs, outputs) -> the layer alone at that width with random weights, and a sample input, for
            timing; None where it cannot stand alone.
        shape_key: equal for layers that cost the same at equal widths.
    """

    name: str
    inputs: Channels
    outputs: Channels
    flops_per_pair: float
    depthwise: bool = False
    build: Callable[[int, int], tuple[nn.Module, Tensor]] | None = None
    shape_key: str = ""

    def flops(self, widths: Widths) -> float:
        """FLOPs at these widths."""
        outputs = self.outputs.at(widths)
        return self.flops_per_pair * outputs * (1 if self.depthwise else self.inputs.at(widths))


def total_flops(layers: tuple[Layer, ...], widths: Widths) -> float:
    """FLOPs of all layers."""
    return sum(layer.flops(widths) for layer in layers)
