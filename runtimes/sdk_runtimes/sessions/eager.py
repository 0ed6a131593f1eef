"""PyTorch eager as a session: the baseline of benchmarks, and a test double that computes for real.

Runs a live function, not a file, so it is not a row of `backends`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdk_runtimes.errors import SessionError
from sdk_runtimes.feeds import Array
from sdk_runtimes.require import require
from sdk_runtimes.session import Placement, Session
from sdk_runtimes.specs import DTYPES, ProgramSpec

if TYPE_CHECKING:
    from torch import nn

NAME = "eager"

# Arrays by input name -> arrays by output name, or in the order of the outputs.
ArrayFunction = Callable[[Mapping[str, Array]], Mapping[str, Array] | Sequence[Array]]


class EagerSession:
    """A PyTorch model, or any function on arrays.

    Args:
        function: an `nn.Module` whose `forward` takes the program's inputs by name; or a function on
            arrays by name that gives arrays by name or in order.
        spec: what it takes and gives.
        threads: PyTorch's threads during a run; None leaves them as they are.
    """

    def __init__(
        self, function: "ArrayFunction | nn.Module", spec: ProgramSpec, *, threads: int | None = None
    ) -> None:
        self.placement = Placement(NAME, "cpu")
        self._torch = require("torch", needed_for="an eager session")
        self._source = function
        self._spec = spec
        self._threads = threads
        is_module = isinstance(function, self._torch.nn.Module)
        self._function: ArrayFunction | None = on_arrays(function) if is_module else function
        self._inputs = tuple(item.name for item in spec.inputs)

    def run(self, feeds: Sequence[Array]) -> Sequence[Array]:
        """One run; arrays in the order of the program's inputs and outputs. Results are the caller's own."""
        assert self._function is not None, "closed"
        with self._torch.inference_mode(), self._limited_threads():
            results = self._function(dict(zip(self._inputs, feeds, strict=True)))
        return [np.array(array) for array in _in_order(results, self._spec)]

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """Ties buffers to the function. PyTorch allocates its own results, so they are copied out."""

        def call() -> None:
            for target, result in zip(outputs, self.run(inputs), strict=True):
                target[...] = result

        return call

    def clone(self) -> "EagerSession":
        """The same function and weights."""
        return EagerSession(self._source, self._spec, threads=self._threads)

    def close(self) -> None:
        """Lets go of the function."""
        self._function = None

    @contextlib.contextmanager
    def _limited_threads(self) -> Iterator[None]:
        before = self._torch.get_num_threads()
        if self._threads is None or self._threads == before:
            yield
            return
        self._torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            self._torch.set_num_threads(before)


def eager_session(
    function: "ArrayFunction | nn.Module", spec: ProgramSpec, *, threads: int | None = None
) -> Session:
    """A checked session over PyTorch eager, as `load` gives one over a bundle.

    Args:
        function: see `EagerSession`.
        spec: what it takes and gives.
        threads: PyTorch's threads during a run; None leaves them as they are.

    Raises:
        MissingExtraError: torch is not installed.
    """
    return Session(spec, EagerSession(function, spec, threads=threads))


def on_arrays(module: Any) -> ArrayFunction:
    """A module as a function on arrays: inputs go to `forward` by name, results come out flat.

    Args:
        module: an `nn.Module`; takes tensors by keyword, gives a tensor, or tensors in tuples, lists,
            dicts and dataclasses.
    """
    torch = require("torch", needed_for="an eager session")

    def call(feeds: Mapping[str, Array]) -> Sequence[Array]:
        # torch.from_numpy takes neither read-only arrays without a warning nor negative strides at all.
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
        return [leaf.detach().cpu().numpy() for leaf in torch.utils._pytree.tree_leaves(module(**tensors))]

    return call


def _in_order(results: Mapping[str, Array] | Sequence[Array], spec: ProgramSpec) -> Sequence[Array]:
    names = [item.name for item in spec.outputs]
    if isinstance(results, Mapping):
        results = [results[name] for name in names]
    if len(results) != len(names):
        raise SessionError(
            f"the function gave {len(results)} results, the spec names {len(names)}: {names}",
            why="every output needs its result",
            fix="make spec.outputs and the function agree",
        )
    return [np.asarray(array, DTYPES[item.dtype]) for array, item in zip(results, spec.outputs, strict=True)]
