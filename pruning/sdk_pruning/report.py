"""What a pruning did, measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    @property
    def flops_left(self) -> float:
        """Share of the dense FLOPs that stays."""
        return self.flops[1] / self.flops[0] if self.flops[0] else 1.0

    @property
    def speedup(self) -> float | None:
        """Dense latency over pruned latency."""
        return self.latency_ms[0] / self.latency_ms[1] if self.latency_ms else None

    def __str__(self) -> str:
        parts = [_figures(self), _judged(self), _groups(self.groups), _kept(self.kept)]
        parts.append([f"warning: {text}" for text in self.warnings])
        return "\n\n".join("\n".join(part) for part in parts if part)


def _figures(report: PruneReport) -> list[str]:
    rows = [("FLOPs", *(_scaled(value, "FLOP") for value in report.flops), report.flops_left)]
    before, after = report.parameters
    rows.append(("parameters", _scaled(before, ""), _scaled(after, ""), after / before if before else 1.0))
    if report.latency_ms is not None:
        dense, pruned = report.latency_ms
        rows.append(("latency", f"{dense:.3g} ms", f"{pruned:.3g} ms", pruned / dense))
    return [f"{'':<14}{'dense':>12}{'pruned':>13}{'left':>9}"] + [
        f"{what:<14}{before:>12}{after:>13}{left:>9.1%}" for what, before, after, left in rows
    ]


def _judged(report: PruneReport) -> list[str]:
    on = f"on {report.held_out} held-out samples" if report.held_out else "on the samples it was fitted to"
    rows = [("output error", f"{report.relative_error:.4f} of the outputs' norm, {on}")]
    if report.agreement is not None:
        rows.append(("same top-1", f"{report.agreement:.1%} of them"))
    if report.speedup is not None:
        rows.append(("measured", f"{report.speedup:.2f} × as fast, {report.target}"))
    rows += [
        ("widths", report.allocation),
        ("surgery", f"cut and masked network differ by {report.masked_difference:.1g}"),
        ("took", f"{report.seconds:.0f} s, {report.samples} calibration samples"),
    ]
    return [f"{what:<14}{text}" for what, text in rows]


def _groups(groups: Sequence[GroupReport]) -> list[str]:
    width = max((len(group.name) for group in groups), default=0) + 2
    head = f"{'group':<{width}}{'':<9}{'units':>6}{'kept':>6}{'lost':>9}"
    rows = [
        f"{group.name:<{width}}{group.role:<9}{group.units:>6}{group.kept:>6}{group.error:>9.4f}"
        for group in groups
    ]
    return [head, *rows, "lost: expected share of the energy of what the layers after a group compute"]


def _kept(kept: Mapping[str, str]) -> list[str]:
    """One line a reason."""
    modules: dict[str, list[str]] = {}
    for module, why in kept.items():
        modules.setdefault(why, []).append(module)
    return [f"outputs not cut: {', '.join(names)} ({why})" for why, names in modules.items()]


def _scaled(value: float, unit: str) -> str:
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}".rstrip()


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
    """Share of samples (or tokens) with the same top-1 class.

    From first outputs of (B, classes) or (B, L, classes); None for outputs of another form.
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
