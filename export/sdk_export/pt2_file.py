"""Reads a `.pt2` file without ever unpickling from it.

torch.export.load falls back to full unpickling for odd weights, constants and sample inputs, and a pickle
runs code. So the archive is looked through first, and refused where torch would unpickle.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from sdk_runtimes.errors import ArgumentError, UnsafeBundleError

_CONFIG_MAX_BYTES = 64 << 20
_PICKLED_CONSTANTS = ("custom_obj_", "opaque_obj_")


def load_pt2(path: Path) -> ExportedProgram:
    """An exported program from a file.

    Raises:
        ArgumentError: there is no such file, or it is no archive of torch.export.save.
        UnsafeBundleError: it holds pickled objects.
    """
    if not path.is_file():
        raise ArgumentError(
            f"there is no file {str(path)!r}", fix="torch.export.save(program, path) writes one"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_pickles(archive, path)
    except zipfile.BadZipFile as error:
        raise ArgumentError(f"{str(path)!r} is no .pt2 archive", why=str(error)) from error
    return torch.export.load(path)


def _refuse_pickles(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    if not any(name.endswith("/archive_format") for name in names):
        raise UnsafeBundleError(
            f"{str(path)!r} is a .pt2 of an old format",
            why="its weights are a pickle, and a pickle runs code",
            fix="load it where you trust it, and torch.export.save it again with torch 2.8 or newer",
        )
    for name in names:
        if name.endswith("_config.json"):
            _refuse_config(_json(archive, name), name, path)
        elif "/sample_inputs/" in name and name.endswith(".pt"):
            _refuse_samples(archive.read(name), name, path)


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _CONFIG_MAX_BYTES:
        raise UnsafeBundleError(f"{name} is larger than {_CONFIG_MAX_BYTES} bytes")
    try:
        return json.loads(archive.read(name))
    except ValueError as error:
        raise UnsafeBundleError(f"{name} is not JSON", why=str(error)) from error


def _refuse_config(content: Any, name: str, path: Path) -> None:
    entries = content.get("config") if isinstance(content, dict) else None
    for key, entry in (entries or {}).items():
        file = str(entry.get("path_name", "")) if isinstance(entry, dict) else ""
        if not isinstance(entry, dict) or entry.get("use_pickle") or file.startswith(_PICKLED_CONSTANTS):
            raise UnsafeBundleError(
                f"{key!r} in {path.name}:{name} is pickled",
                why="a pickle runs code when it is read",
                fix="save the program again with plain dense tensors as weights and constants",
            )


def _refuse_samples(data: bytes, name: str, path: Path) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:
        raise UnsafeBundleError(
            f"{path.name}:{name} holds more than tensors and plain values",
            why=f"torch would unpickle it: {type(error).__name__}",
            fix="save the program again with plain sample inputs",
        ) from error
