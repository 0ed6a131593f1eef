"""What a pruned network gains once it is exported: dense and pruned bundle by turns, engine by engine."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

import sdk
from sdk.turns import by_turns

if TYPE_CHECKING:
    from collections.abc import Callable

TARGETS = ("onnx", "openvino")
THREADS = 2
RUNS = 100


@dataclass(frozen=True)
class Speed:
    """One engine.

    Attributes:
        dense_ms: median latency of the dense bundle.
        pruned_ms: of the pruned one.
        flop_ratio: dense FLOPs by pruned FLOPs.
    """

    dense_ms: float
    pruned_ms: float
    flop_ratio: float

    @property
    def share(self) -> float:
        """The measured speed-up by the FLOP ratio: 1 where every FLOP that went saved its time."""
        return self.dense_ms / self.pruned_ms / self.flop_ratio

    @property
    def text(self) -> str:
        """One line."""
        return (
            f"dense {self.dense_ms:.2f} ms, pruned {self.pruned_ms:.2f} ms: "
            f"{self.dense_ms / self.pruned_ms:.2f} × at {self.flop_ratio:.2f} × fewer FLOPs "
            f"({self.share:.0%})"
        )


def measure_speed(dense: nn.Module, pruned: nn.Module, sample: Tensor, flop_ratio: float) -> dict[str, Speed]:
    """Exports both, through the gate, and times the bundles against each other.

    Args:
        dense: the network.
        pruned: the same, smaller.
        sample: one input.
        flop_ratio: dense FLOPs by pruned FLOPs.

    Returns:
        Target -> latencies.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        calls: dict[tuple[str, str], Callable[[], object]] = {}
        for label, network in (("dense", dense), ("pruned", pruned)):
            path = Path(folder) / f"{label}.bundle"
            bundle = sdk.export(network, path, target=list(TARGETS), sample_inputs=(sample,), name=label)
            for target in TARGETS:
                session = stack.enter_context(sdk.load(bundle.path, target=target, threads=THREADS))
                calls[target, label] = partial(session.run, {session.inputs[0].name: sample.numpy()})
        found = {}
        for target in TARGETS:
            sides = {label: calls[target, label] for label in ("dense", "pruned")}
            times = by_turns(sides, runs=RUNS, warmup=10)
            found[target] = Speed(times["dense"].median_ms, times["pruned"].median_ms, flop_ratio)
    return found
