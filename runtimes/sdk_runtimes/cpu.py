"""What this machine calls its processor and its GPU driver."""

import platform
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_NVIDIA = Path("/proc/driver/nvidia/version")


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """Brand string of the processor, or at least its architecture."""
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603 - constant
        return said.stdout.strip() or platform.machine()
    return brand(_read(_CPUINFO)) or platform.processor() or platform.machine()


def brand(cpuinfo: str) -> str:
    """The brand string in the text of `/proc/cpuinfo`; empty if it holds none (ARM)."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""


def nvidia_driver() -> str:
    """Version line of the NVIDIA kernel driver; empty without one."""
    return _read(_NVIDIA).partition("\n")[0].strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
