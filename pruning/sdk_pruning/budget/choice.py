"""The allocated plan must earn its place: otherwise the uniform one is taken."""

from dataclasses import dataclass

from sdk_pruning.budget.latency_target import TOLERANCE

NOISE = 0.02
"""Latencies of two measurements of one network differ by so much."""


@dataclass(frozen=True)
class Candidate:
    """A plan that was built and measured.

    Attributes:
        name: "uniform" or "allocated".
        widths: group -> units kept.
        error: held-out error of the whole pruned network.
        ms: measured on the target; None where no latency was asked for.
    """

    name: str
    widths: dict[str, int]
    error: float
    ms: float | None = None


@dataclass(frozen=True)
class Choice:
    """Which plan was taken, and why; goes into the report.

    Attributes:
        taken: the plan.
        other: the plan that was not.
        reason: one sentence with the figures.
        is_faster: whether the taken plan was measured to be faster than the dense network; None where no
            latency was measured.
    """

    taken: Candidate
    other: Candidate
    reason: str
    is_faster: bool | None


def choose(
    allocated: Candidate, uniform: Candidate, *, dense_ms: float | None = None, target_ms: float | None = None
) -> Choice:
    """Keeps the allocated plan if its held-out error is lower and it really is faster.

    Args:
        allocated: from `allocate` and `local_search`.
        uniform: at the same budget.
        dense_ms: of the dense network, measured with the candidates; None where nothing was timed.
        target_ms: what was asked for; None without a latency target.
    """
    objection = _objection(allocated, uniform, dense_ms, target_ms)
    taken, other = (uniform, allocated) if objection else (allocated, uniform)
    reason = objection or (
        f"the allocated plan has the lower held-out error: {allocated.error:.4g}, uniform {uniform.error:.4g}"
    )
    is_faster = None if dense_ms is None or taken.ms is None else taken.ms < dense_ms * (1 - NOISE)
    if is_faster is False:
        reason += f"; it takes {taken.ms:.4g} ms and is not faster than the dense network, {dense_ms:.4g} ms"
    return Choice(taken, other, reason, is_faster)


def _objection(
    allocated: Candidate, uniform: Candidate, dense_ms: float | None, target_ms: float | None
) -> str:
    """Why the uniform plan is taken; empty if it is not."""
    if not allocated.error < uniform.error:  # also when it is NaN
        return (
            "the uniform plan is taken: the allocated one has no lower held-out error, "
            f"{allocated.error:.4g} against {uniform.error:.4g}"
        )
    if allocated.ms is None:
        return ""
    if dense_ms is not None and allocated.ms >= dense_ms * (1 - NOISE):
        return (
            f"the uniform plan is taken: the allocated one takes {allocated.ms:.4g} ms, "
            f"the dense network {dense_ms:.4g} ms"
        )
    most = _slowest_allowed(uniform, target_ms)
    if most is not None and allocated.ms > most:
        return (
            f"the uniform plan is taken: the allocated one takes {allocated.ms:.4g} ms, "
            f"allowed are {most:.4g} ms"
        )
    return ""


def _slowest_allowed(uniform: Candidate, target_ms: float | None) -> float | None:
    if target_ms is not None:
        return target_ms * (1 + TOLERANCE)
    return None if uniform.ms is None else uniform.ms * (1 + TOLERANCE)
