"""Writes a bundle beside its place, seals it, and renames it there: all of it or nothing."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sdk_runtimes.bundle import Bundle, check_listing
from sdk_runtimes.bundle_files import MANIFEST_NAME, ROOMS, hash_file, list_files
from sdk_runtimes.errors import OutputExistsError, SdkError, WriteError
from sdk_runtimes.limits import DEFAULT_LIMITS, MIB, Limits
from sdk_runtimes.manifest import Manifest, dump_manifest, parse_manifest
from sdk_runtimes.manifest_checks import check_manifest
from sdk_runtimes.program_files import check_program
from sdk_runtimes.staging import new_sibling, release, tidy

_CANNOT_WRITE = {
    errno.ENOSPC: ("the disk is full", "free some space, or export to another disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or export to another disk"),
    errno.EFBIG: (
        "a file is larger than the file system or `ulimit -f` allows",
        "raise the limit, or export elsewhere",
    ),
    errno.EACCES: ("no permission to write there", "export to a folder you may write to"),
    errno.EPERM: ("no permission to write there", "export to a folder you may write to"),
    errno.EROFS: ("the file system is read-only", "export to a folder you may write to"),
    errno.EIO: ("the disk failed", "check the disk, or export to another one"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "pass a shorter `out`"),
    errno.ENOTDIR: ("a part of the path is a file", "pass an `out` whose parents are folders"),
    errno.EMFILE: ("too many open files", "raise `ulimit -n`"),
}


@contextmanager
def stage_bundle(out: Path, *, overwrite: bool, needed_bytes: int = 0) -> Iterator[Path]:
    """A temporary sibling of `out` to write a bundle into; takes the place of `out` when the block ends.

    The folder holds empty `programs/`, `golden/`, `assets/`. The block must call `seal_bundle` on it. On any
    exception, KeyboardInterrupt included, the folder is deleted and `out` is as it was.

    Args:
        out: where the bundle will be.
        overwrite: replace the bundle that is there.
        needed_bytes: refuse at once where the disk has less than this free.

    Raises:
        OutputExistsError: `out` exists and `overwrite` is not set, or `out` is not a bundle.
        WriteError: disk full, no permission; nothing is left behind.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 -- Path.resolve would follow a link at `out`
    with _explained(out):
        tidy(out)
    check_out(out, overwrite=overwrite)
    staging = new_sibling(out, "staging")
    try:
        with _explained(staging):
            _make(staging, needed_bytes)
            yield staging
            if not (staging / MANIFEST_NAME).is_file():
                raise WriteError(
                    f"the bundle for {str(out)!r} was not sealed", fix="call seal_bundle in the block"
                )
            _put_in_place(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        release(staging)


def seal_bundle(folder: Path, manifest: Manifest, *, limits: Limits = DEFAULT_LIMITS) -> Bundle:
    """Hashes every file, fills `manifest.files`, writes `manifest.json` last, and flushes all of it to disk.

    Args:
        folder: what `stage_bundle` gave.
        manifest: everything but `files`.
        limits: what a reader will hold it to.

    Returns:
        The bundle at `folder`; `bundle.at(out)` once it is in its place.

    Raises:
        UnsafeBundleError: a reader would refuse what was written.
    """
    files = {relative: hash_file(folder / relative) for relative in list_files(folder, limits)}
    data = dump_manifest(replace(manifest, files=files))
    sealed = parse_manifest(data, limits=limits)
    check_manifest(sealed, limits)
    check_listing(folder, sealed, limits)
    for program in sealed.programs:
        check_program(folder, program, limits)
    for relative in files:
        _flush(folder / relative)
    with (folder / MANIFEST_NAME).open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    for room in (*ROOMS, ""):
        _flush(folder / room)
    return Bundle(folder, sealed, hashlib.sha256(data).hexdigest())


def check_out(out: Path, *, overwrite: bool) -> None:
    """Whether a bundle may be written to `out`; touches nothing.

    Raises:
        OutputExistsError: it exists and `overwrite` is not set, or it is not a bundle.
    """
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise OutputExistsError(
            f"{str(out)!r} exists",
            why="nothing is overwritten unasked",
            fix="pass overwrite=True (--overwrite)",
        )
    if out.is_symlink() or not (out / MANIFEST_NAME).is_file():
        raise OutputExistsError(
            f"{str(out)!r} is not a bundle",
            why=f"overwriting deletes the folder, and this one has no {MANIFEST_NAME}",
            fix="pass another `out`, or remove it yourself",
        )


def _make(staging: Path, needed_bytes: int) -> None:
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(staging.parent)) from error
    free = shutil.disk_usage(staging.parent).free
    if free < needed_bytes:
        raise WriteError(
            f"{_mb(needed_bytes)} are needed in {str(staging.parent)!r}",
            why=f"{_mb(free)} are free there",
            fix="free some space, or export to another disk",
        )
    staging.mkdir()
    for room in ROOMS:
        (staging / room).mkdir()


def _put_in_place(staging: Path, out: Path) -> None:
    if os.path.lexists(out):
        _swap(staging, out)
    else:
        staging.rename(out)
        _flush(out.parent)


def _swap(staging: Path, out: Path) -> None:
    replaced, trash = new_sibling(out, "replaced"), new_sibling(out, "staging")
    try:
        # A crash between the two leaves both as hidden siblings; `tidy` then puts the old one back.
        out.rename(replaced)
        staging.rename(out)
        _flush(out.parent)
        # Under this name a half-deleted bundle is never put back.
        replaced.rename(trash)
    except BaseException:
        if os.path.lexists(replaced) and not os.path.lexists(out):
            replaced.rename(out)
        raise
    finally:
        release(replaced)
        release(trash)
    shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    """Turns what a full disk or a missing permission raises into a WriteError."""
    try:
        yield
    except SdkError:
        raise
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise _write_error(place, error, *_CANNOT_WRITE[error.errno]) from error
    except Exception as error:
        # Native writers say "write failed" in exceptions of their own; the disk itself tells why.
        if _free(place) >= MIB:
            raise
        raise _write_error(place, error, *_CANNOT_WRITE[errno.ENOSPC]) from error


def _write_error(place: Path, error: Exception, why: str, fix: str) -> WriteError:
    where = getattr(error, "filename", None) or place.parent
    return WriteError(
        f"could not write {str(where)!r}: {error}",
        why=f"{why}; {_mb(_written(place))} were written, {_mb(_free(place))} are free",
        fix=fix,
    )


def _written(folder: Path) -> int:
    # os.walk and os.path look past errors: a path too long to exist holds nothing.
    paths = (Path(base) / name for base, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in paths)


def _free(place: Path) -> int:
    existing = next((path for path in place.parents if os.path.isdir(path)), Path(place.anchor))  # noqa: PTH112 -- see above
    return shutil.disk_usage(existing).free


def _mb(count: int) -> str:
    return f"{count / MIB:.1f} MiB"


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
