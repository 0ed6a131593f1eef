"""Weights of a pruned model in safetensors."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from sdk_runtimes.errors import PruningError


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the state dict; tied tensors are written once under each name."""
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()},
        path,
    )


def load_weights_(model: nn.Module, path: Path) -> None:
    """Loads a state dict in place, every name and shape as in the model.

    Raises:
        PruningError: the file is missing, broken, or of another model.
    """
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise PruningError(
            f"the weights at {path} cannot be loaded",
            why=str(error).splitlines()[0],
            fix="give the folder that result.save(folder) wrote",
        ) from error
