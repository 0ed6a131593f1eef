"""Times several calls against each other, fairly: by turns, in one process."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Progress = Callable[[str, int, int], None]
"""(stage, done, total)."""

_TURN = 5  # runs in a row: enough to matter, few enough that a disturbance hits every side
_PAUSE_S = 0.01  # threads of the side before spin on for some milliseconds and would steal this one's cores


@dataclass(frozen=True)
class Timing:
    """How long the runs of one side took.

    Attributes:
        runs: how many were measured.
        median_ms: of all of them.
        best_ms: the fastest: what it takes where nothing disturbs.
        p90_ms: nine of ten were at least as fast.
        throughput_per_s: runs a second at the median.
    """

    runs: int
    median_ms: float
    best_ms: float
    p90_ms: float
    throughput_per_s: float


def by_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    runs: int,
    warmup: int,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Runs the sides A A A B B B A A A B B B …, so that a busy moment of the machine hits all of them.

    Every turn begins with one run that is not counted: it brings back into the caches what the side before
    drove out. The side that begins changes from round to round.

    Args:
        calls: label -> one run.
        runs: measured runs of each side.
        warmup: runs of each side before the first measured one.
        progress: told after every round.
        clock: seconds; `time.process_time` counts only what this process computed.
    """
    labels = list(calls)
    for label in labels:
        for _ in range(warmup):
            calls[label]()
    seconds: dict[str, list[float]] = {label: [] for label in labels}
    rounds = -(-runs // _TURN)
    for number in range(rounds):
        first = number % len(labels) if labels else 0
        count = min(_TURN, runs - number * _TURN)
        for label in labels[first:] + labels[:first]:
            seconds[label] += _turn(calls[label], count, clock)
        if progress:
            progress("timing", number + 1, rounds)
    return {label: summarize(taken) for label, taken in seconds.items()}


def summarize(seconds: Sequence[float]) -> Timing:
    """Median, p90 and throughput of some runs.

    Args:
        seconds: one a run, at least one.
    """
    ordered = sorted(seconds)
    middle = median(ordered)
    p90 = ordered[int(0.9 * (len(ordered) - 1))]
    return Timing(len(ordered), middle * 1e3, ordered[0] * 1e3, p90 * 1e3, 1 / middle)


def _turn(call: Callable[[], object], count: int, clock: Callable[[], float]) -> list[float]:
    time.sleep(_PAUSE_S)
    call()
    taken = []
    for _ in range(count):
        start = clock()
        call()
        taken.append(clock() - start)
    return taken
