"""How small a network shall become."""

from dataclasses import dataclass

from sdk_pruning.budget.uniform import check_ratio
from sdk_runtimes.errors import ArgumentError


@dataclass(frozen=True)
class Goal:
    """One of three; the others are None.

    Attributes:
        ratio: share of channels removed in every group.
        flops: share of the dense FLOPs that stays.
        latency_ms: on the target.
    """

    ratio: float | None = None
    flops: float | None = None
    latency_ms: float | None = None

    @property
    def text(self) -> str:
        """Such as "ratio=0.5"."""
        given = {"ratio": self.ratio, "target_flops": self.flops, "target_latency_ms": self.latency_ms}
        return ", ".join(f"{name}={value:g}" for name, value in given.items() if value is not None)


def goal_of(ratio: float | None, target_flops: float | None, target_latency_ms: float | None) -> Goal:
    """Checks the arguments that say how much shall go.

    Raises:
        ArgumentError: none or several of them, or one out of range.
    """
    given = [ratio, target_flops, target_latency_ms]
    if sum(value is not None for value in given) != 1:
        raise ArgumentError(
            f"ratio={ratio}, target_flops={target_flops}, target_latency_ms={target_latency_ms}",
            why="exactly one of them says how much shall go",
            fix="ratio=0.5, target_flops=0.5 or target_latency_ms=5.0",
        )
    if ratio is not None:
        check_ratio(ratio)
    if target_flops is not None and not _between(target_flops):
        raise ArgumentError(
            f"target_flops is {target_flops!r}",
            why="it is the share of the dense FLOPs that stays: above 0, at most 1",
            fix="target_flops=0.5 halves them",
        )
    if target_latency_ms is not None and not _positive(target_latency_ms):
        raise ArgumentError(
            f"target_latency_ms is {target_latency_ms!r}",
            why="a network takes some time",
            fix="target_latency_ms=5.0",
        )
    return Goal(ratio, target_flops, target_latency_ms)


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _between(value: object) -> bool:
    return _positive(value) and isinstance(value, int | float) and value <= 1
