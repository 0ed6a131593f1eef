"""Names of flat inputs and outputs, from the structure they came in.

An input is called as the parameter of `forward`; what is nested in it is joined with a dot
("batch.mask", "states.0"). An output keeps its dict key or field name; a lone tensor is "output",
the elements of a tuple are "output_0", "output_1", ….
"""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sdk_export.samples import Samples

# (name, value): tensors are inputs; anything else is a constant of the trace
Leaf = tuple[str, Any]


def input_leaves(model: nn.Module, samples: Samples) -> list[Leaf]:
    """Every leaf of the arguments with its name, in the order in which torch.export flattens them."""
    leaves, _ = pytree.tree_flatten_with_path((samples.args, samples.kwargs))
    positional = _positional_names(model, len(samples.args))
    named = []
    for path, value in leaves:
        if path[0].idx == 0:  # type: ignore[attr-defined]  # (args, kwargs) is a tuple: a SequenceKey
            head: str = positional[path[1].idx]  # type: ignore[attr-defined]  # args is a tuple likewise
        else:
            head = str(path[1].key)  # type: ignore[attr-defined]  # kwargs is a dict: a MappingKey
        named.append((".".join([head, *_parts(path[2:])]), value))
    return named


def output_leaves(outputs: object) -> list[Leaf]:
    """Every leaf of what `forward` returned, with its name."""
    leaves, _ = pytree.tree_flatten_with_path(outputs)
    return [(_output_name(path), value) for path, value in leaves]


def register_dataclasses(value: object) -> None:
    """Makes dataclass instances inside `value` transparent to torch.export, which refuses them otherwise."""
    if isinstance(value, tuple | list):
        for item in value:
            register_dataclasses(item)
    elif isinstance(value, dict):
        register_dataclasses(list(value.values()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value) not in pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(type(value))
        register_dataclasses([getattr(value, field.name) for field in dataclasses.fields(value)])


def _positional_names(model: nn.Module, count: int) -> list[str]:
    names: list[str] = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}.{i}" for i in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return names[:count]


def _output_name(path: Sequence[Any]) -> str:
    if not path:
        return "output"
    parts = _parts(path)
    if isinstance(path[0], pytree.SequenceKey):
        parts[0] = f"output_{parts[0]}"
    return ".".join(parts)


def _parts(path: Sequence[Any]) -> list[str]:
    return [str(_key(step)) for step in path]


def _key(step: Any) -> object:
    """The index, key or attribute name of one pytree step."""
    for attribute in ("idx", "key", "name"):
        if hasattr(step, attribute):
            return getattr(step, attribute)
    return step
