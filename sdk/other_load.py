"""How much of the machine others took while something was measured."""

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # columns of /proc/stat (man 5 proc_stat): idle, iowait
_COUNTED = 8  # user to steal; guest time, which follows, is part of user


@dataclass(frozen=True)
class CpuClock:
    """What the cores of this process have done so far.

    Attributes:
        wall_s: monotonic clock.
        busy_s: seconds that the cores were busy, for whomever.
        own_s: seconds of them for this process.
    """

    wall_s: float
    busy_s: float
    own_s: float


def cpu_clock() -> CpuClock | None:
    """Reads the clock; None where the system does not tell (anything but Linux)."""
    if not _STAT.exists():
        return None
    ticks = busy_ticks(_STAT.read_text(), os.sched_getaffinity(0))
    return CpuClock(time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


def cores_taken(start: CpuClock | None, end: CpuClock | None) -> float | None:
    """Cores that others kept busy between two readings, on average."""
    if start is None or end is None or end.wall_s <= start.wall_s:
        return None
    others_s = (end.busy_s - start.busy_s) - (end.own_s - start.own_s)
    return max(0.0, others_s / (end.wall_s - start.wall_s))


def busy_ticks(stat: str, cores: Collection[int]) -> int:
    """Ticks in which some cores were not idle, from the text of `/proc/stat`."""
    total = 0
    for line in stat.splitlines():
        name, *columns = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            ticks = [int(column) for column in columns[:_COUNTED]]
            total += sum(ticks) - sum(ticks[column] for column in _IDLE)
    return total
