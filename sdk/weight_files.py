"""Weights of a network into a safetensors file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sdk_runtimes.errors import OutputExistsError, UnknownChoiceError, WriteError

if TYPE_CHECKING:
    from torch import nn

_SUFFIX = ".safetensors"


def check_weights_out(path: Path, *, overwrite: bool) -> None:
    """Refuses what could not be written, before anything is computed.

    Raises:
        UnknownChoiceError: not a type of file that we write.
        OutputExistsError: it exists and `overwrite` was not given, or it is a folder.
    """
    if path.suffix != _SUFFIX:
        raise UnknownChoiceError("file type", path.suffix, (_SUFFIX,))
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder", why="it is not replaced", fix="name a file")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists", why="it is not replaced unasked", fix="pass --overwrite")


def write_weights(path: Path, model: "nn.Module") -> None:
    """Writes parameters and buffers; `safetensors.torch.load_model(model, path)` reads them.

    A tensor under several names is written once. The file appears whole or not at all.

    Raises:
        WriteError: the disk is full, or may not be written to.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_model(model, str(staged))
        staged.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors wraps what the system says
        raise WriteError(
            f"{path} could not be written", why=str(error), fix="free space, or another --out"
        ) from error
    finally:
        staged.unlink(missing_ok=True)
