"""Torch-Pruning 1.6.1 (Fang et al., DepGraph, CVPR 2023), used as its README says.

`BasePruner` in one step, the classifier ignored, `GroupMagnitudeImportance(p=2)` or another criterion that
needs no gradient. Of the README's settings only `round_to=8` is left out: it serves speed, removes more than
asked for, and would make the peer's error worse. Three scopes rank channels: `uniform` (the default: each
group for itself), `global` (all groups together), `isomorphic` (groups of one structure together; ECCV 2024).

Batch norm statistics are not part of the tool: `reestimate_norms_` is offered to it as an extra row.
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from benchmarks.peers.measures import flops

TOLERANCE = 0.01  # of the dense FLOPs: the peer keeps up to this much more than asked for, never less
_STEPS = 14


@dataclass(frozen=True)
class Criterion:
    """How Torch-Pruning chooses channels.

    Attributes:
        importance: a key of `IMPORTANCES`.
        scope: a key of `SCOPES`.
        seed: matters to "random" only.
    """

    importance: str
    scope: str = "uniform"
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.importance}, {self.scope}"


IMPORTANCES: Mapping[str, Callable[[], Any]] = {
    "magnitude": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    "activation": torch_pruning.importance.ActivationImportance,
    "FPGM": torch_pruning.importance.FPGMImportance,
    "BN scale": torch_pruning.importance.BNScaleImportance,
    "random": torch_pruning.importance.RandomImportance,
}
"""All its criteria without gradients; LAMP is left out, which within one group orders as magnitude does."""

SCOPES: Mapping[str, Mapping[str, bool]] = {
    "uniform": {},
    "global": {"global_pruning": True},
    "isomorphic": {"global_pruning": True, "isomorphic": True},
}


@dataclass(frozen=True)
class Peer:
    """A network that Torch-Pruning is to prune.

    Attributes:
        network: stays as it is.
        sample: one input.
        calibration: [N, …] unlabelled inputs; the activation criterion looks at them all at once, because
            it remembers only its last batch.
        keep: names of the modules whose outputs must not be pruned.
    """

    network: nn.Module
    sample: Tensor
    calibration: Tensor
    keep: tuple[str, ...]

    def at_ratio(self, ratio: float, criterion: Criterion) -> nn.Module:
        """Prunes a copy by a share of its channels (of each group, or of all, as the scope says)."""
        network = copy.deepcopy(self.network)
        importance = IMPORTANCES[criterion.importance]()
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # its deprecations are not ours to mend
            torch.manual_seed(criterion.seed)
            pruner = torch_pruning.pruner.BasePruner(
                network,
                self.sample,
                importance=importance,
                pruning_ratio=ratio,
                ignored_layers=[network.get_submodule(name) for name in self.keep],
                **SCOPES[criterion.scope],
            )
            if isinstance(importance, torch_pruning.importance.ActivationImportance):
                with torch.no_grad(), importance.compute_importance(network):
                    network(self.calibration)
            pruner.step()
        return network.eval()


def prune_to_flops(
    network: nn.Module,
    sample: Tensor,
    share_left: float,
    criterion: Criterion,
    calibration: Tensor,
    *,
    keep: tuple[str, ...],
    guess: float | None = None,
) -> tuple[nn.Module, float]:
    """Finds the ratio at which a share of the dense FLOPs is left, or a little more.

    Args:
        network: stays as it is.
        sample: one input.
        share_left: 0 to 1, of the dense FLOPs.
        criterion: how channels are chosen.
        calibration: unlabelled inputs.
        keep: names of the modules whose outputs must not be pruned.
        guess: a ratio to try first; what another call found.

    Returns:
        The pruned copy that is nearest to, and not below, `share_left`; and its ratio.

    Raises:
        ValueError: for a share that no ratio reaches.
    """
    peer = Peer(network, sample, calibration, keep)
    dense = flops(network, sample)
    # A ratio that leaves too much and one that leaves too little, each with the root of the share it leaves:
    # FLOPs fall about with the square of the width.
    above, below = (0.0, 1.0), (1.0, 0.0)
    best: tuple[float, float, nn.Module] | None = None  # surplus, ratio, network
    aim = (share_left + TOLERANCE / 2) ** 0.5
    for step in range(_STEPS):
        ratio = guess if guess is not None and step == 0 else _between(above, below, aim, halve=step % 3 == 2)
        pruned = peer.at_ratio(ratio, criterion)
        share = flops(pruned, sample) / dense
        if share < share_left:
            below = ratio, share**0.5
            continue
        above = ratio, share**0.5
        if best is None or share - share_left < best[0]:
            best = share - share_left, ratio, pruned
        if best[0] <= TOLERANCE:
            break
    if best is None:
        raise ValueError(f"{criterion} leaves less than {share_left:.0%} of the FLOPs at every ratio tried")
    return best[2], best[1]


def _between(above: tuple[float, float], below: tuple[float, float], aim: float, *, halve: bool) -> float:
    """The next ratio to try: on the line through both ends, or, so that no end stays for ever, half way."""
    (low, most), (high, least) = above, below
    return low + (high - low) * (0.5 if halve else (most - aim) / (most - least))
