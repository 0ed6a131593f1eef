"""Names of flat inputs and outputs, from the structure they came in.

An input is called as the parameter of `forward`; what is nested in it is joined with a dot
("batch.mask", "states.0"). An output keeps its dict key or field name; a lone tensor is "output",
the elements of a tuple are "output_0", "output_1", ….
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sdk_export.samples import Samples

# (name, value): tensors are inputs; anything else is a constant of the trace
Leaf = tuple[str, Any]


def input_leaves(model: nn.Module, samples: Samples) -> list[Leaf]:
    """Every leaf of the arguments with its name, in the order in which torch.export flattens them."""
    heads = _positional_names(model, len(samples.args))
    top = [*zip(heads, samples.args, strict=True), *samples.kwargs.items()]
    return [(".".join([head, *path]), leaf) for head, value in top for path, leaf in _descend(value)]


def output_leaves(outputs: object) -> list[Leaf]:
    """Every leaf of what `forward` returned, with its name."""
    is_sequence = isinstance(outputs, tuple | list) and not hasattr(outputs, "_fields")
    named = []
    for path, leaf in _descend(outputs):
        first = f"output_{path[0]}" if path and is_sequence else "output"
        named.append((".".join([first, *path[1:]]) if is_sequence or not path else ".".join(path), leaf))
    return named


def _descend(value: object) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, leaf) pairs in pytree order."""
    children = _children(value)
    if children is None:
        yield (), value
        return
    for key, child in children:
        for path, leaf in _descend(child):
            yield (key, *path), leaf


def _children(value: Any) -> list[tuple[str, Any]] | None:
    """One level of a pytree with the keys that its type knows; None for a leaf."""
    node = pytree.SUPPORTED_NODES.get(pytree._get_node_type(value))
    if node is None:
        return None
    if node.flatten_with_keys_fn is not None:
        pairs, _ = node.flatten_with_keys_fn(value)
        return [(str(_key(step)), child) for step, child in pairs]
    children, _ = node.flatten_fn(value)
    # Hugging Face's ModelOutput is registered without key paths, but it is a mapping.
    keys = list(value) if isinstance(value, Mapping) and len(value) == len(children) else range(len(children))
    return [(str(key), child) for key, child in zip(keys, children, strict=True)]


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


def _key(step: Any) -> object:
    """The index, key or attribute name of one pytree step."""
    for attribute in ("idx", "key", "name"):
        if hasattr(step, attribute):
            return getattr(step, attribute)
    return step
