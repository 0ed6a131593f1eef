"""The files of a bundle: which paths are allowed, what lies on disk, what it hashes to.

Links. Symbolic links are refused everywhere below the bundle's root. Hard links are accepted: package
managers (pip, uv, conda, ostree) deduplicate with them, and content is addressed by hash, so a hard link to
a file whose content the manifest does not already name is refused like any altered file.

Time of check. Hashes are computed once, when a bundle is opened; engines then open the same paths by name.
Whoever can write to the folder between the two can change what is loaded: keep bundles where only you, or
your installer, may write. A folder that was checked is not checked again by anything after `open_bundle`.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader, FileIO
from pathlib import Path

from sdk_runtimes.errors import BundleError, IntegrityError, UnsafeBundleError
from sdk_runtimes.limits import Limits
from sdk_runtimes.manifest import FileEntry

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "model.sig"
ROOMS = ("programs", "golden", "assets")
"""The folders that hold a bundle's files; nothing else may lie beside the manifest but a signature."""

# ASCII only: no case folding or normalisation of Unicode can then make two names one.
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,+=@() -]*", re.ASCII)
# Windows opens a device for these, whatever the extension.
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in range(10)]
)
# O_NONBLOCK: a pipe that is put there after the look at its type must not make us wait.
_O_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_LINKS = "links and devices are refused"
_FETCH = "fetch or export the bundle again"


def is_plain_component(name: str) -> bool:
    """Whether a name can be a file's on every platform: ASCII, no separator, not reserved by Windows."""
    return (
        _COMPONENT.fullmatch(name) is not None
        and name[-1] not in ". "
        and name.split(".", maxsplit=1)[0].rstrip().lower() not in _RESERVED
    )


def check_path(path: str, limits: Limits) -> None:
    """Refuses a path that is not plainly below one of `ROOMS`.

    Raises:
        UnsafeBundleError: absolute, `..`, a backslash, a drive, control or non-ASCII characters, a hidden or
            reserved name, too long, or outside the folders of a bundle.
    """
    components = path.split("/")
    if len(path) > limits.path_chars:
        raise UnsafeBundleError(
            f"path {path[:60]!r}… has {len(path)} characters", why=f"at most {limits.path_chars}"
        )
    if not all(is_plain_component(component) for component in components):
        raise UnsafeBundleError(
            f"path {path!r} is not allowed in a bundle",
            why="paths are relative, ASCII, joined by '/', without '..', hidden or reserved names",
        )
    if len(components) < 2 or components[0] not in ROOMS:
        raise UnsafeBundleError(
            f"path {path!r} is outside {', '.join(ROOMS)}", why="files of a bundle lie there"
        )


def check_distinct(paths: Iterable[str]) -> None:
    """Refuses paths that are one on a file system that ignores case, and a file that is also a folder."""
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(path.lower(), path)
        if other != path:
            raise UnsafeBundleError(f"paths {other!r} and {path!r} differ only in case")
    for path in seen.values():
        parent = path.lower().rpartition("/")[0]
        if parent in seen:
            raise UnsafeBundleError(f"path {seen[parent]!r} is a file and the folder of {path!r}")


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file for reading; follows no link.

    Raises:
        IntegrityError: it is not there.
        UnsafeBundleError: it is a link, a folder, a pipe, a device.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UnsafeBundleError(f"{str(path)!r} is not a regular file", why=_LINKS)
        descriptor = os.open(path, os.O_RDONLY | _O_SAFE)
    except FileNotFoundError as error:
        raise IntegrityError(f"{str(path)!r} is missing", why="the manifest lists it", fix=_FETCH) from error
    except OSError as error:
        raise BundleError(f"{str(path)!r} cannot be opened", why=str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafeBundleError(f"{str(path)!r} is not a regular file", why=_LINKS)
    return BufferedReader(FileIO(descriptor, "rb"))


def hash_file(path: Path) -> FileEntry:
    """Content address of a file, read in pieces.

    Raises:
        BundleError: as `open_regular`.
    """
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(sha256=digest, size=file.tell())


def check_file(root: Path, relative: str, entry: FileEntry) -> None:
    """Checks the size, then the hash, of one file.

    Raises:
        IntegrityError: missing, truncated or altered.
        UnsafeBundleError: not a regular file.
    """
    path = root / relative
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.size:
            raise IntegrityError(
                f"{relative!r} has {size} bytes", why=f"the manifest says {entry.size}", fix=_FETCH
            )
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != entry.sha256:
        raise IntegrityError(
            f"{relative!r} has the hash {digest}", why=f"the manifest says {entry.sha256}", fix=_FETCH
        )


def list_files(root: Path, limits: Limits) -> list[str]:
    """All files below `ROOMS`, sorted; refuses what else lies in the folder.

    Raises:
        UnsafeBundleError: a link, a device, a stray file beside the manifest, too many files.
    """
    found: list[str] = []
    for count, relative in enumerate(_walk(root, "", limits)):
        top, slash, _ = relative.partition("/")
        if count > 2 * limits.files or len(found) > limits.files:
            raise UnsafeBundleError(f"the bundle holds more than {limits.files} files")
        if relative in (MANIFEST_NAME, SIGNATURE_NAME):
            continue
        if top not in ROOMS or not slash:
            raise UnsafeBundleError(
                f"{relative!r} does not belong in a bundle", fix="remove it, or fetch the bundle again"
            )
        if not relative.endswith("/"):
            found.append(relative)
    return sorted(found)


def _walk(root: Path, prefix: str, limits: Limits) -> Iterator[str]:
    if len(prefix) > limits.path_chars:
        raise UnsafeBundleError(f"folder {prefix[:60]!r}… is nested too deep")
    with os.scandir(root / prefix) as entries:
        for entry in entries:
            relative = f"{prefix}{entry.name}"
            if _is_link(entry):
                raise UnsafeBundleError(
                    f"{relative!r} is a link",
                    why="links can lead out of the bundle, or be changed after the check",
                    fix="copy the bundle with its links resolved (cp -rL)",
                )
            if entry.is_dir(follow_symlinks=False):
                yield f"{relative}/"
                yield from _walk(root, f"{relative}/", limits)
            elif entry.is_file(follow_symlinks=False):
                yield relative
            else:
                raise UnsafeBundleError(f"{relative!r} is not a regular file")


def _is_link(entry: os.DirEntry[str]) -> bool:
    # Windows has junctions beside symbolic links; both are reparse points.
    attributes = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
    return entry.is_symlink() or bool(attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)
