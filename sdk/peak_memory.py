"""The most memory this process ever held."""

import sys
from pathlib import Path


def peak_rss_bytes() -> int | None:
    """High-water mark of the resident set of this process in bytes; None where the system does not tell.

    On Linux from `/proc`: `getrusage` there also counts the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return parse_high_water(status.read_text())
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def parse_high_water(status: str) -> int | None:
    """`VmHWM` of a `/proc/<pid>/status`, in bytes; None where it is missing."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
