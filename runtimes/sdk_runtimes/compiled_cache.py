"""The cache folder: compiled blobs, verdicts of replays, measured speeds. Safe to delete at any time.

    <root>/compiled/<key>/…            what an engine compiled
    <root>/compiled/<key>.about.json   for whom, to be read by people
    <root>/verdicts/<key>.json
    <root>/speeds/<key>.json

A cache that cannot be written costs time, never a result: it is logged once and done without.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdk_runtimes.memory_sizes import parse_size

ROOT_VARIABLE = "EDGE_SDK_CACHE_DIR"
CAP_VARIABLE = "EDGE_SDK_CACHE_MAX"
DEFAULT_CAP_BYTES = 4 << 30  # a handful of large models, and not the whole disk of a laptop

COMPILED, VERDICTS, SPEEDS = "compiled", "verdicts", "speeds"
_ABOUT = ".about.json"
_STAGED = ".staged-"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """One thing in the cache.

    Attributes:
        kind: "compiled", "verdicts" or "speeds".
        key: its name there.
        path: a folder or a file.
        size_bytes: of all its files.
        used_at: when it was last used, in seconds since the epoch.
        about: bundle, program, device and versions, where known.
    """

    kind: str
    key: str
    path: Path
    size_bytes: int
    used_at: float
    about: Mapping[str, Any]


def cache_root() -> Path:
    """`$EDGE_SDK_CACHE_DIR`, else the platform's cache folder of "edge-sdk"."""
    if chosen := os.environ.get(ROOT_VARIABLE):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("edge-sdk", appauthor=False))


def cap_bytes() -> int:
    """What compiled blobs may take together: `$EDGE_SDK_CACHE_MAX` ("2GB"), else 4 GiB.

    Raises:
        ArgumentError: the variable is no size.
    """
    return parse_size(os.environ.get(CAP_VARIABLE) or DEFAULT_CAP_BYTES)


def key_of(about: Mapping[str, Any]) -> str:
    """Name of an entry: a hash of all that it depends on."""
    canonical = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@contextlib.contextmanager
def compiled_folder(about: Mapping[str, Any]) -> Iterator[Path | None]:
    """A folder where an engine keeps what it compiles; None if the cache cannot be written.

    A new one is staged beside its place and appears there when the block ends well, so that a killed
    process leaves no half-written blob to be loaded. Then the least recently used ones are removed until
    all fit the cap.

    Args:
        about: what the blob depends on: bundle, program, device, versions.
    """
    home = cache_root() / COMPILED
    final = home / key_of(about)
    if final.is_dir():
        _touch(final)
        yield final
        return
    staged = _stage(home, final.name)
    if staged is None:
        yield None
        return
    try:
        yield staged
        _publish(staged, final, about)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    trim(keep=final.name)


def read(kind: str, key: str) -> dict[str, Any] | None:
    """A JSON entry; None if there is none that can be read."""
    path = cache_root() / kind / f"{key}.json"
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    _touch(path)
    return content if isinstance(content, dict) else None


def write(kind: str, key: str, content: Mapping[str, Any]) -> None:
    """Writes a JSON entry, all of it or nothing."""
    home = cache_root() / kind
    try:
        home.mkdir(parents=True, exist_ok=True)
        _write_whole(home / f"{key}.json", content)
    except OSError as error:
        _log_unwritable(str(cache_root()), error.strerror or str(error))


def entries() -> tuple[CacheEntry, ...]:
    """What is in the cache, the least recently used first."""
    found = [entry for kind in (COMPILED, VERDICTS, SPEEDS) for entry in _entries(kind)]
    return tuple(sorted(found, key=lambda entry: entry.used_at))


def size_bytes() -> int:
    """Size of all entries."""
    return sum(entry.size_bytes for entry in entries())


def clear() -> int:
    """Removes all entries, and leftovers of killed processes; gives the bytes that were freed."""
    before = _tree_bytes(cache_root())
    for kind in (COMPILED, VERDICTS, SPEEDS):
        shutil.rmtree(cache_root() / kind, ignore_errors=True)
    return before - _tree_bytes(cache_root())


def trim(*, keep: str = "") -> None:
    """Removes the least recently used compiled blobs until they fit the cap.

    Args:
        keep: a key that stays whatever its size: it is in use.
    """
    blobs = sorted(_entries(COMPILED), key=lambda entry: entry.used_at)
    excess = sum(entry.size_bytes for entry in blobs) - cap_bytes()
    for entry in blobs:
        if excess <= 0:
            return
        if entry.key == keep:
            continue
        shutil.rmtree(entry.path, ignore_errors=True)
        entry.path.with_name(entry.key + _ABOUT).unlink(missing_ok=True)
        excess -= entry.size_bytes


def _stage(home: Path, name: str) -> Path | None:
    staged = home / f"{name}{_STAGED}{secrets.token_hex(4)}"
    try:
        staged.mkdir(parents=True)
    except OSError as error:
        _log_unwritable(str(cache_root()), error.strerror or str(error))
        return None
    return staged


def _publish(staged: Path, final: Path, about: Mapping[str, Any]) -> None:
    try:
        if not any(staged.iterdir()):  # the engine had nothing to keep
            return
        _write_whole(final.with_name(final.name + _ABOUT), about)
        staged.rename(final)
    except OSError as error:
        # Another process was faster, the folder was deleted meanwhile, or Windows holds a blob open.
        _log.debug("compiled blob %s is not kept: %s", final.name, error)


def _write_whole(path: Path, content: Mapping[str, Any]) -> None:
    staged = path.with_name(f"{path.name}{_STAGED}{secrets.token_hex(4)}")
    try:
        staged.write_text(json.dumps(content, indent=1, sort_keys=True, default=str), encoding="utf-8")
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # read-only, or deleted a moment ago
        os.utime(path)


def _entries(kind: str) -> Iterator[CacheEntry]:
    home = cache_root() / kind
    with contextlib.suppress(OSError):
        for path in sorted(home.iterdir()):
            if _STAGED in path.name or path.name.endswith(_ABOUT):
                continue
            with contextlib.suppress(OSError):  # deleted meanwhile
                yield _entry(kind, path)


def _entry(kind: str, path: Path) -> CacheEntry:
    about_path = path.with_name(path.name + _ABOUT) if kind == COMPILED else path
    try:
        about = json.loads(about_path.read_bytes())
    except (OSError, ValueError, RecursionError):
        about = {}
    known = about if isinstance(about, dict) else {}
    key = path.name.removesuffix(".json")
    return CacheEntry(kind, key, path, _tree_bytes(path), path.stat().st_mtime, known)


def _tree_bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total


@lru_cache(maxsize=64)  # once a folder and reason
def _log_unwritable(root: str, reason: str) -> None:
    _log.warning("the cache %s cannot be written, so loads stay slow: %s", root, reason)
