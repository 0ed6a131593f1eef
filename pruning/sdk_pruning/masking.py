"""The network with features masked instead of removed: what a pruned network must compute."""

from collections import ChainMap, defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from sdk_pruning.calls import Call
from sdk_pruning.execution import Values, run
from sdk_pruning.groups import Structure
from sdk_pruning.removal import Removal
from sdk_pruning.tracing import Traced


def masked_outputs(
    traced: Traced, structure: Structure, state: Mapping[str, Tensor], removal: Removal, call: Call
) -> list[Any]:
    """Outputs with every removed feature set to zero wherever it is summed over.

    Args:
        traced: the dense graph.
        structure: names the uses.
        state: parameter or buffer name -> tensor.
        removal: what is masked.
        call: inputs.
    """
    uses = structure.findings.uses
    by_node: defaultdict[str, list[tuple[str, int, tuple[int, ...]]]] = defaultdict(list)
    for number, positions in removal.masks.items():
        use = uses[number]
        by_node[use.node].append((use.features, use.axis, positions))

    def view(node: fx.Node, values: Values) -> Values:
        if node.name not in by_node:
            return values
        changed = {
            name: masked(values[name], axis, positions) for name, axis, positions in by_node[node.name]
        }
        return ChainMap(changed, values)  # type: ignore[return-value]  # a mapping is all that is read

    return run(traced, state, traced.feeds(call), view=view)


def masked(features: Tensor, axis: int, positions: tuple[int, ...]) -> Tensor:
    """A copy with some positions of an axis at zero."""
    return features.index_fill(axis, torch.tensor(positions), 0)
