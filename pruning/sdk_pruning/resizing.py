"""Sizes that a module's code writes out, in `x.view(B, N, C)` and the like: they must follow the weights.

Where no attribute of the module says them, the module gets a subclass whose forward pass corrects single
numbers of single calls. Parameters, their names and the code itself stay, and torch.export sees through it.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ATTRIBUTE = "pruned_sizes"
"""Of a module: (number of call, position) -> size."""


@dataclass(frozen=True)
class Resize:
    """One number in one call.

    Attributes:
        module: path of the module whose forward pass makes the call.
        call: which of the calls that take sizes, counted from 0 in every forward pass.
        position: among the sizes of that call.
        size: the new one.
    """

    module: str
    call: int
    position: int
    size: int


@dataclass(frozen=True)
class SizedCall:
    """A call that takes sizes.

    Attributes:
        kind: "shape", "expand" or "split".
        sizes: that it was given.
        first: axis of the result that the first of them is, 0 unless single axes are split.
        again: makes the same call with other sizes.
    """

    kind: str
    sizes: list[Any]
    first: int
    again: Callable[[list[Any]], Any]


def _shaped(kind: str) -> Callable[..., SizedCall | None]:
    def read(function: Callable[..., Any], tensor: Tensor, *sizes: Any, **named: Any) -> SizedCall | None:
        given = sizes or tuple(named.get(name) for name in ("shape", "size") if name in named)
        if len(given) == 1 and isinstance(given[0], list | tuple):
            given = tuple(given[0])
        if not given or isinstance(given[0], torch.dtype):
            return None
        return SizedCall(kind, list(given), 0, lambda new: function(tensor, tuple(new)))

    return read


def _unflattened(
    function: Callable[..., Any], tensor: Tensor, dim: int, sizes: Sequence[Any]
) -> SizedCall | None:
    first = dim % tensor.ndim if isinstance(dim, int) else 0
    return SizedCall("shape", list(sizes), first, lambda new: function(tensor, dim, tuple(new)))


def _split(
    function: Callable[..., Any], tensor: Tensor, split_size: Any = None, dim: int = 0, **named: Any
) -> SizedCall | None:
    given = next((named[name] for name in _SPLITS if name in named), split_size)
    if isinstance(given, list | tuple):
        return SizedCall("split", list(given), dim, lambda new: function(tensor, list(new), dim=dim))
    return SizedCall("split", [given], dim, lambda new: function(tensor, new[0], dim=dim))


_SPLITS = ("split_size_or_sections", "split_sizes", "split_size")
_READERS: Mapping[Any, Callable[..., SizedCall | None]] = {
    Tensor.view: _shaped("shape"),
    Tensor.reshape: _shaped("shape"),
    torch.reshape: _shaped("shape"),
    Tensor.expand: _shaped("expand"),
    torch.broadcast_to: _shaped("expand"),
    Tensor.unflatten: _unflattened,
    torch.unflatten: _unflattened,
    Tensor.split: _split,
    torch.split: _split,
}


class SizedCalls(TorchFunctionMode):
    """While it is entered, calls that take sizes are counted and handed to a function.

    Args:
        change: (number of the call, the call) -> the sizes that it shall have.
    """

    def __init__(self, change: Callable[[int, SizedCall], list[Any]]) -> None:
        super().__init__()
        self._change, self._count = change, 0

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of every function."""
        reader = _READERS.get(function)
        call = None if reader is None else reader(function, *args, **(kwargs or {}))
        if call is None:
            return function(*args, **(kwargs or {}))
        number, self._count = self._count, self._count + 1
        return call.again(self._change(number, call))


def resize_(model: nn.Module, resizes: Sequence[Resize]) -> None:
    """Lets forward passes correct sizes, in place; what was corrected before stays."""
    for resize in resizes:
        module = model.get_submodule(resize.module)
        sizes = vars(module).get(ATTRIBUTE, {})
        if not sizes:
            kind: Any = type(module)  # mypy thinks that no class of modules can be hashed
            module.__class__ = _resized_class(kind)
        setattr(module, ATTRIBUTE, {**sizes, (resize.call, resize.position): resize.size})


@functools.cache
def _resized_class(kind: type[nn.Module]) -> type[nn.Module]:
    """A subclass that corrects sizes as its attribute says."""

    def mode(module: nn.Module) -> SizedCalls:
        sizes = getattr(module, ATTRIBUTE)

        def change(number: int, call: SizedCall) -> list[Any]:
            return [sizes.get((number, position), size) for position, size in enumerate(call.sizes)]

        return SizedCalls(change)

    return counting_class(kind, mode, f"Resized{kind.__name__}")


def counting_class(
    kind: type[nn.Module], mode: Callable[[nn.Module], SizedCalls], name: str
) -> type[nn.Module]:
    """A subclass whose forward pass runs in a mode.

    Args:
        kind: the class.
        mode: module -> a fresh mode for one forward pass.
        name: of the subclass.
    """
    original = kind.forward

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with mode(self):
            return original(self, *args, **kwargs)

    return type(name, (kind,), {"forward": forward, "__module__": kind.__module__, "__doc__": kind.__doc__})
