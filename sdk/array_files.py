"""Arrays from files and into them, without pickle."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from sdk_runtimes.errors import ArgumentError, OutputExistsError, UnknownChoiceError, WriteError
from sdk_runtimes.feeds import Array


def read_feeds(texts: Iterable[str]) -> dict[str, Array]:
    """Reads `NAME=FILE` or `FILE`.

    Args:
        texts: `x=picture.npy`; `x=arrays.npz` takes the array `x` of the file, or its only one; `arrays.npz`
            takes all of them by their own names.

    Raises:
        ArgumentError: a file that is missing or cannot be read, a .npy without a name, a name given twice.
        UnknownChoiceError: an unknown file type, or no such array in the file.
    """
    feeds: dict[str, Array] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        found = _named(name, Path(file)) if equals else _all(Path(text))
        if twice := sorted(found.keys() & feeds.keys()):
            raise ArgumentError(
                f"--input gives {twice} twice", why="an input has one value", fix="remove one of them"
            )
        feeds |= found
    return feeds


def check_out(path: Path, *, overwrite: bool) -> None:
    """Refuses what could not be written, before anything is computed.

    Raises:
        UnknownChoiceError: not a type of file that we write.
        OutputExistsError: it exists and `overwrite` was not given.
    """
    if path.suffix not in _WRITERS:
        raise UnknownChoiceError("file type", path.suffix, _WRITERS)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists", why="it is not replaced unasked", fix="pass --overwrite")


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays by name as .npz or .safetensors.

    Raises:
        UnknownChoiceError: not a type of file that we write.
        WriteError: the disk is full, or may not be written to.
    """
    if path.suffix not in _WRITERS:
        raise UnknownChoiceError("file type", path.suffix, _WRITERS)
    try:
        _WRITERS[path.suffix](path, {name: np.array(array, order="C") for name, array in arrays.items()})
    except OSError as error:
        raise WriteError(f"{path} was not written", why=str(error), fix="choose another place") from error


def _named(name: str, path: Path) -> dict[str, Array]:
    arrays = _read(path)
    if len(arrays) == 1:
        return {name: next(iter(arrays.values()))}
    if name not in arrays:
        raise UnknownChoiceError(f"array in {path.name}", name, arrays)
    return {name: arrays[name]}


def _all(path: Path) -> dict[str, Array]:
    if path.suffix == ".npy":
        raise ArgumentError(
            f"--input {path} has no name", why="a .npy file does not hold one", fix=f"--input NAME={path}"
        )
    return _read(path)


def _read(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError

    if path.suffix not in _READERS:
        raise UnknownChoiceError("file type", path.suffix or path.name, _READERS)
    try:
        return _READERS[path.suffix](path)
    except (OSError, ValueError, KeyError, BadZipFile, SafetensorError) as error:
        raise ArgumentError(
            f"{path} cannot be read", why=str(error), fix=f"pass a {path.suffix} file of plain arrays"
        ) from error


def _read_npy(path: Path) -> dict[str, Array]:
    return {"": np.load(path, allow_pickle=False)}


def _read_npz(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors.numpy import load_file

    return load_file(path)


def _write_npz(path: Path, arrays: dict[str, Array]) -> None:
    # Every name is a keyword: one called "file" would be taken for np.savez's own argument.
    from zipfile import ZipFile

    with ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _write_safetensors(path: Path, arrays: dict[str, Array]) -> None:
    from safetensors.numpy import save

    path.write_bytes(save(arrays))


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
_WRITERS = {".npz": _write_npz, ".safetensors": _write_safetensors}
