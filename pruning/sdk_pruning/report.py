"""What a pruning did, measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class GroupReport:
    """One group before and after.

    Attributes:
        name: of the group.
        role: "channels", "heads", "dims" or "values".
        units: before.
        kept: after.
        error: expected relative error (energy) of the layers that read it.
    """

    name: str
    role: str
    units: int
    kept: int
    error: float


@dataclass(frozen=True)
class PruneReport:
    """Figures of dense and pruned network.

    Attributes:
        flops: dense and pruned, at the sample inputs, two a multiply-add.
        parameters: dense and pruned.
        latency_ms: dense and pruned on `target`, medians of runs by turns; None where not measured.
        target: that latency was measured on, such as "onnx on onnxruntime:cpu"; empty where not measured.
        relative_error: ‖y − ŷ‖ / ‖y‖ of the outputs on held-out calibration data.
        agreement: share of held-out samples whose top-1 class is the dense network's; None where the first
            output has no classes.
        held_out: samples that these two were measured on.
        samples: calibration samples in all.
        masked_difference: largest difference between cut and masked network before compensation, relative.
        groups: before and after.
        kept: module -> why its outputs stay.
        allocation: "uniform", or how widths were allocated, with the reason for the choice.
        warnings: what a reader should know.
        seconds: that pruning took.
    """

    flops: tuple[float, float]
    parameters: tuple[int, int]
    relative_error: float
    agreement: float | None
    held_out: int
    samples: int
    masked_difference: float
    groups: tuple[GroupReport, ...]
    kept: Mapping[str, str]
    allocation: str = "uniform"
    latency_ms: tuple[float, float] | None = None
    target: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flops_left(self) -> float:
        """Share of the dense FLOPs that stays."""
        return self.flops[1] / self.flops[0] if self.flops[0] else 1.0

    @property
    def speedup(self) -> float | None:
        """Dense latency over pruned latency."""
        return self.latency_ms[0] / self.latency_ms[1] if self.latency_ms else None

    def __str__(self) -> str:
        lines = [
            _line("FLOPs", *self.flops, 1e6, "MFLOP"),
            _line("parameters", *self.parameters, 1e6, "M"),
        ]
        if self.latency_ms:
            lines.append(_line(f"latency, {self.target}", *self.latency_ms, 1.0, "ms"))
        lines.append(
            f"{'relative output error':<28}{self.relative_error:.4f}  ({self.held_out} held-out samples)"
        )
        if self.agreement is not None:
            lines.append(f"{'top-1 agreement':<28}{self.agreement:.1%}")
        lines.append(f"{'allocation':<28}{self.allocation}")
        width = max((len(group.name) for group in self.groups), default=0) + 2
        lines += ["", f"{'group':<{width}}{'units':>6}{'kept':>6}{'error':>9}"]
        lines += [
            f"{group.name:<{width}}{group.units:>6}{group.kept:>6}{group.error:>9.4f}"
            for group in self.groups
        ]
        lines += ["", *(f"kept {name}: {why}" for name, why in self.kept.items())]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines).rstrip()


def _line(what: str, before: float, after: float, unit: float, name: str) -> str:
    share = after / before if before else 1.0
    return f"{what:<28}{before / unit:.4g} -> {after / unit:.4g} {name}  ({share:.1%} left)"


def relative_error(dense: Sequence[Sequence[Any]], pruned: Sequence[Sequence[Any]]) -> float:
    """‖y − ŷ‖ / ‖y‖ over all floating outputs of all calls together."""
    difference = size = 0.0
    for ours, theirs in zip(dense, pruned, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            if isinstance(one, Tensor) and one.is_floating_point():
                difference += float((one.double() - other.double()).square().sum())
                size += float(one.double().square().sum())
    return (difference / size) ** 0.5 if size else 0.0


def agreement(dense: Sequence[Sequence[Any]], pruned: Sequence[Sequence[Any]]) -> float | None:
    """Share of samples (or tokens) with the same top-1 class, from first outputs of (B, classes) or (B, L,
    classes); None for outputs of another form.
    """
    same = count = 0
    for ours, theirs in zip(dense, pruned, strict=True):
        one, other = ours[0], theirs[0]
        if not isinstance(one, Tensor) or not one.is_floating_point() or one.ndim not in (2, 3):
            return None
        if one.shape[-1] < 2:
            return None
        match = one.argmax(-1) == other.argmax(-1)
        same, count = same + int(torch.sum(match)), count + match.numel()
    return same / count if count else None
