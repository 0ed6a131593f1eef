"""Where sample inputs come from when the caller gives none, and their one normal form."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sdk_runtimes.errors import SampleInputsError

_EXAMPLE_CALL = "sdk.export(model, sample_inputs=(torch.randn(1, 3, 224, 224),), …)"


@dataclass(frozen=True)
class Samples:
    """Arguments for one call of `forward`.

    Attributes:
        args: positional.
        kwargs: by keyword, in the order of the signature.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def find_samples(
    model: nn.Module, sample_inputs: object = None, sample_kwargs: Mapping[str, Any] | None = None
) -> Samples:
    """The caller's sample inputs, else the model's own.

    Args:
        model: asked in this order: `sample_inputs()`, Hugging Face `dummy_inputs`, timm's
            `pretrained_cfg["input_size"]`.
        sample_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments;
            numpy arrays may stand for tensors.
        sample_kwargs: further keyword arguments.

    Raises:
        SampleInputsError: none are found, or they do not fit `forward`.
    """
    if sample_inputs is None and not sample_kwargs:
        sample_inputs = _ask(model)
    samples = _normal_form(sample_inputs, dict(sample_kwargs or {}))
    return _in_signature_order(model, samples)


def _ask(model: nn.Module) -> object:
    for source in _SOURCES:
        found = source(model)
        if found is not None:
            return found
    raise SampleInputsError(
        f"{type(model).__name__} came without sample inputs",
        why="it has neither sample_inputs(), nor dummy_inputs, nor pretrained_cfg['input_size']",
        fix=_EXAMPLE_CALL,
    )


def _own_method(model: nn.Module) -> object:
    method = getattr(model, "sample_inputs", None)
    return method() if callable(method) else None


def _hugging_face(model: nn.Module) -> object:
    dummy = getattr(model, "dummy_inputs", None)
    return dict(dummy) if isinstance(dummy, Mapping) and dummy else None


def _timm(model: nn.Module) -> object:
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, Mapping) else getattr(config, "input_size", None)
    if not isinstance(size, Sequence) or not all(isinstance(n, int) for n in size):
        return None
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(1, *size, generator=generator),)


_SOURCES: tuple[Callable[[nn.Module], object], ...] = (_own_method, _hugging_face, _timm)


def _normal_form(given: object, kwargs: dict[str, Any]) -> Samples:
    if isinstance(given, Mapping):
        return Samples((), {**{str(k): _tensors(v) for k, v in given.items()}, **_tensors(kwargs)})
    if given is None:
        return Samples((), _tensors(kwargs))
    args = tuple(given) if isinstance(given, tuple | list) else (given,)
    return Samples(tuple(_tensors(arg) for arg in args), _tensors(kwargs))


def _tensors(value: Any) -> Any:
    """Numpy arrays become tensors, at any depth."""
    return torch.utils._pytree.tree_map(
        lambda leaf: torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf, value
    )


def _in_signature_order(model: nn.Module, samples: Samples) -> Samples:
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*samples.args, **samples.kwargs)
    except TypeError as error:
        raise SampleInputsError(
            f"the sample inputs do not fit {type(model).__name__}.forward{signature}",
            why=str(error),
            fix="pass one value a parameter: sample_inputs=(x, y) or sample_inputs={'x': x, 'y': y}",
        ) from error
    return Samples(bound.args, {key: samples.kwargs[key] for key in bound.kwargs})
