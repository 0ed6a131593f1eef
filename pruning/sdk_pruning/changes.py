"""What changes in a pruned model beside the slices that are cut, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from sdk_pruning.rescaling import Rescale, rescale_
from sdk_pruning.resizing import Resize, resize_


@dataclass(frozen=True)
class Reset:
    """One attribute of a module that follows, such as its number of heads.

    Attributes:
        module: path of the module.
        attribute: its name.
        value: the new number.
    """

    module: str
    attribute: str
    value: int


Change = Reset | Resize | Rescale
"""Everything that a plan may say about a model beside its slices."""

_KINDS: tuple[type[Reset] | type[Resize] | type[Rescale], ...] = (Reset, Resize, Rescale)


def apply_changes_(model: nn.Module, changes: Sequence[Change]) -> None:
    """Makes changes to a model whose tensors have been cut, in place."""
    for change in changes:
        if isinstance(change, Reset):
            setattr(model.get_submodule(change.module), change.attribute, change.value)
    resize_(model, [change for change in changes if isinstance(change, Resize)])
    rescale_(model, [change for change in changes if isinstance(change, Rescale)])


def read_change(data: Mapping[str, Any]) -> Change:
    """A change from the fields that JSON gave back.

    Raises:
        ValueError: there is no such change.
    """
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    }
    for kind in _KINDS:
        if {field.name for field in fields(kind)} == set(data):
            return kind(**values)
    raise ValueError(f"no change has the fields {sorted(data)}")
