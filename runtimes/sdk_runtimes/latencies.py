"""How long the runs of a session took."""

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

_KEPT = 1024  # enough for a stable p90, small enough to sort at every `metrics()`


@dataclass(frozen=True)
class SessionMetrics:
    """What a session measured of itself.

    Attributes:
        load_ms: from the files to ready, including compilation.
        runs: calls of `run` and of bound runs.
        median_ms: over the last runs (at most 1024); 0 before the first.
        p90_ms: likewise.
        first_ms: the first run, often slower; 0 before it.
    """

    load_ms: float
    runs: int
    median_ms: float
    p90_ms: float
    first_ms: float


class Latencies:
    """Counts runs and keeps the last latencies."""

    def __init__(self) -> None:
        self._recent_ns: deque[int] = deque(maxlen=_KEPT)
        self._first_ns = 0
        self._count = 0

    def add(self, elapsed_ns: int) -> None:
        """Notes one run. Called in the hot path."""
        if not self._count:
            self._first_ns = elapsed_ns
        self._count += 1
        self._recent_ns.append(elapsed_ns)

    def metrics(self, load_ms: float) -> SessionMetrics:
        """What was seen so far, in milliseconds."""
        recent = sorted(self._recent_ns)
        return SessionMetrics(
            load_ms=load_ms,
            runs=self._count,
            median_ms=median(recent) / 1e6 if recent else 0.0,
            p90_ms=recent[math.ceil(0.9 * len(recent)) - 1] / 1e6 if recent else 0.0,
            first_ms=self._first_ns / 1e6,
        )
