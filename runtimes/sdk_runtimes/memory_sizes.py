"""Sizes of memory as people write them."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from sdk_runtimes.errors import ArgumentError

UNITS: Mapping[str, int] = MappingProxyType(
    {
        "B": 1,
        "KB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "TB": 10**12,
        "KIB": 1 << 10,
        "MIB": 1 << 20,
        "GIB": 1 << 30,
        "TIB": 1 << 40,
    }
)

_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]+)\s*", re.ASCII)


def parse_size(given: int | str) -> int:
    """Bytes: an int as it is, "2GB" (10^9), "1.5 GiB" (2^30).

    Raises:
        ArgumentError: not a size, an unknown unit, or not above zero.
    """
    if isinstance(given, str):
        found = _SIZE.fullmatch(given)
        size = round(float(found[1]) * UNITS.get(found[2].upper(), 0)) if found else 0
    else:
        size = given if isinstance(given, int) and not isinstance(given, bool) else 0
    if size <= 0:
        raise ArgumentError(
            f"{given!r} is not a size of memory",
            why="a size is a number of bytes above zero, or a number with B, KB, MB, GB, KiB, MiB or GiB",
            fix='memory_limit="2GB"',
        )
    return size


def format_size(size_bytes: float) -> str:
    """For people: "812 MB"; powers of ten, as `parse_size` reads them."""
    for unit in ("GB", "MB", "KB"):
        if size_bytes >= UNITS[unit]:
            value = size_bytes / UNITS[unit]
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{size_bytes:.0f} B"
