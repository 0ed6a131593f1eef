"""Hidden siblings in which a bundle is built, and what is left of them when an export is killed.

A staging folder is named `.<out>.staging-<host>-<pid>-<token>`, and the bundle that an overwrite replaces
waits as `.<out>.replaced-<host>-<pid>-<token>` until the new one is in its place. Both names tell who made
them, so the next export to the same `out` can see that their maker is dead, and tidy up.
"""

import hashlib
import os
import platform
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Purpose = Literal["staging", "replaced"]

# Folders of this process: after a restart in a container the same pid may come again, with other tokens.
_OWN_TOKENS: set[str] = set()


@dataclass(frozen=True)
class Sibling:
    """A hidden folder beside `out`."""

    path: Path
    purpose: str
    host: str
    pid: int
    token: str

    @property
    def is_stale(self) -> bool:
        """Whether the process that made it is gone. A folder of another machine is never called stale."""
        if self.host != _host():
            return False
        if self.pid == os.getpid():
            return self.token not in _OWN_TOKENS
        return not is_alive(self.pid)


def new_sibling(out: Path, purpose: Purpose) -> Path:
    """A fresh name beside `out`; makes nothing."""
    token = secrets.token_hex(4)
    _OWN_TOKENS.add(token)
    return out.parent / f".{out.name}.{purpose}-{_host()}-{os.getpid()}-{token}"


def release(sibling: Path) -> None:
    """Says that this process no longer works on a sibling; what is left of it counts as stale."""
    _OWN_TOKENS.discard(sibling.name.rpartition("-")[2])


def siblings(out: Path) -> Iterator[Sibling]:
    """The hidden folders that exports to `out` left, of this process and of others."""
    pattern = re.compile(
        rf"\.{re.escape(out.name)}\.(staging|replaced)-([0-9a-f]{{8}})-(\d+)-([0-9a-f]{{8}})"
    )
    for path in out.parent.iterdir() if out.parent.is_dir() else ():
        if (match := pattern.fullmatch(path.name)) and path.is_dir() and not path.is_symlink():
            purpose, host, pid, token = match.groups()
            yield Sibling(path, purpose, host, int(pid), token)


def tidy(out: Path) -> None:
    """Removes what killed exports to `out` left; puts back a bundle that was about to be replaced."""
    for sibling in [item for item in siblings(out) if item.is_stale]:
        if sibling.purpose == "replaced" and not os.path.lexists(out):
            sibling.path.rename(out)
        else:
            shutil.rmtree(sibling.path, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs; True when that cannot be told."""
    if sys.platform == "win32":
        return _is_alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_alive_on_windows(pid: int) -> bool:
    import ctypes

    # os.kill(pid, 0) would end the process there.
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 -- the attribute exists on Windows only
    query_limited_information, still_active = 0x1000, 259
    handle = kernel.OpenProcess(query_limited_information, 0, pid)
    if not handle:
        return False
    code = ctypes.c_ulong()
    known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return not known or code.value == still_active


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
