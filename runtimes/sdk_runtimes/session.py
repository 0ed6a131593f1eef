"""A program loaded on a device."""

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import NoReturn, Protocol, Self

import numpy as np

from sdk_runtimes.errors import FeedError, SdkError, SessionError
from sdk_runtimes.feeds import Array, FeedCheck
from sdk_runtimes.latencies import Latencies, SessionMetrics
from sdk_runtimes.specs import DTYPES, ProgramSpec, TensorSpec


@dataclass(frozen=True)
class Placement:
    """Where a program really runs.

    Attributes:
        backend: "onnxruntime", "openvino", "tensorrt", "coreml", "eager".
        device: the device asked for, resolved ("cpu", "cuda:0", …).
        nodes: execution unit -> number of graph nodes that run there; empty if the engine does not tell.
        fallbacks: why something runs elsewhere than asked; empty if nothing does.
    """

    backend: str
    device: str
    nodes: Mapping[str, int] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()


class RawSession(Protocol):
    """What a backend implements. Trusts its caller: feeds were checked and ordered."""

    placement: Placement

    def run(self, feeds: Sequence[Array]) -> Sequence[Array]:
        """One run; arrays in the order of the program's inputs and outputs. Results are the caller's own."""
        ...

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """Ties C-contiguous buffers to the program; the callable runs it from and into them."""
        ...

    def clone(self) -> "RawSession":
        """A session for another thread; shares the weights where the engine can."""
        ...

    def close(self) -> None:
        """Frees what the engine holds; may be called twice."""
        ...


class Binding:
    """Preallocated buffers tied to a session: write into `inputs`, `run()`, read `outputs`.

    Attributes:
        inputs: by name; write into them with `inputs["x"][...] = value`.
        outputs: by name; overwritten by every run.
    """

    def __init__(
        self,
        inputs: Mapping[str, Array],
        outputs: dict[str, Array],
        call: Callable[[], None],
        latencies: Latencies,
        explain: Callable[[Exception], SdkError],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._call = call
        self._latencies = latencies
        self._explain = explain

    def run(self) -> dict[str, Array]:
        """Runs from `inputs` into `outputs`; allocates nothing.

        Raises:
            SessionError: the engine failed, or the session is closed.
        """
        start = time.perf_counter_ns()
        try:
            self._call()
        except Exception as error:
            raise self._explain(error) from error
        self._latencies.add(time.perf_counter_ns() - start)
        return self.outputs

    def replace_call(self, call: Callable[[], None]) -> None:
        """Lets go of the engine: `run` calls this instead."""
        self._call = call


class Session:
    """A program loaded on a device. A context manager; one thread at a time (`clone()` for more).

    Args:
        spec: what the program takes and gives.
        raw: the backend's session.
        load_ms: what loading took.
    """

    def __init__(self, spec: ProgramSpec, raw: RawSession, *, load_ms: float = 0.0) -> None:
        self.spec = spec
        self._raw: RawSession | None = raw
        self._check = FeedCheck(spec.inputs, spec.symbols)
        self._output_names = tuple(output.name for output in spec.outputs)
        self._load_ms = load_ms
        self._latencies = Latencies()
        self._bindings: weakref.WeakSet[Binding] = weakref.WeakSet()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The program's inputs."""
        return self.spec.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The program's outputs, in the order in which `run` returns them."""
        return self.spec.outputs

    @property
    def device(self) -> str:
        """`backend:device`, as `sdk.devices()` lists it."""
        return f"{self.placement.backend}:{self.placement.device}"

    @property
    def placement(self) -> Placement:
        """What runs where, and why not elsewhere."""
        return self._open().placement

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the program once.

        Args:
            feeds: one array an input, by name.

        Returns:
            One array an output, by name, in the order of `outputs`.

        Raises:
            FeedError: a wrong name, dtype or shape.
            SessionError: the engine failed, or the session is closed.
        """
        raw = self._raw or self._open()
        arrays = self._check.ordered(feeds)
        start = time.perf_counter_ns()
        try:
            results = raw.run(arrays)
        except Exception as error:
            raise self._explained(error) from error
        self._latencies.add(time.perf_counter_ns() - start)
        return dict(zip(self._output_names, results, strict=True))

    def bind(self, feeds: Mapping[str, Array] | None = None, **sizes: int) -> Binding:
        """Preallocates buffers for loops: no copies, no allocation per run.

        Args:
            feeds: first values of the inputs, which also fix symbolic sizes.
            sizes: a size for each symbol (`bind(batch=4)`) when `feeds` is not given.

        Raises:
            FeedError: a symbol without a size, or feeds that do not fit.
        """
        raw = self._open()
        given = feeds if feeds is not None else {s.name: _zeros(s, sizes) for s in self.spec.inputs}
        # Fresh C-contiguous copies: the engine keeps their addresses, the caller's arrays stay his.
        inputs = [np.array(array, order="C") for array in self._check.ordered(given)]
        try:
            # One run tells the output shapes, whatever expressions over symbols they are; it also warms up.
            outputs = [np.array(array, order="C") for array in raw.run(inputs)]
            call = raw.bind(inputs, outputs)
        except Exception as error:
            raise self._explained(error) from error
        names = [spec.name for spec in self.spec.inputs]
        binding = Binding(
            dict(zip(names, inputs, strict=True)),
            dict(zip(self._output_names, outputs, strict=True)),
            call,
            self._latencies,
            self._explained,
        )
        self._bindings.add(binding)
        return binding

    def metrics(self) -> SessionMetrics:
        """Latencies of the runs so far."""
        return self._latencies.metrics(self._load_ms)

    def clone(self) -> "Session":
        """A session on the same program for another thread."""
        return Session(self.spec, self._open().clone(), load_ms=0.0)

    def loaded_in(self, load_ms: float) -> None:
        """Notes what loading took, for `metrics`."""
        self._load_ms = load_ms

    def add_fallbacks(self, reasons: Sequence[str]) -> None:
        """Notes why this device and not another, for `placement`."""
        raw = self._open()
        raw.placement = replace(raw.placement, fallbacks=(*reasons, *raw.placement.fallbacks))

    def close(self) -> None:
        """Frees what the engine holds; may be called twice."""
        if self._raw is not None:
            for binding in self._bindings:  # or their engine objects would keep the weights
                binding.replace_call(self._refuse)
            self._raw.close()
            self._raw = None

    def _open(self) -> RawSession:
        if self._raw is None:
            self._refuse()
        return self._raw

    def _refuse(self) -> NoReturn:
        raise SessionError(
            f"the session of {self.spec.id!r} is closed",
            why="close() was called, or its `with` block has ended",
            fix="sdk.load(...) it again",
        )

    def _explained(self, error: Exception) -> SdkError:
        if isinstance(error, SdkError):
            return error
        return SessionError(
            f"program {self.spec.id!r} failed on {self.device}: {error}",
            why=f"the engine raised {type(error).__name__}",
            fix="edge-sdk verify tells whether it works here; load(..., device=...) runs it elsewhere",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = self.device if self._raw is not None else "closed"
        return f"<Session {self.spec.id} {self.spec.precision} on {where}>"


def _zeros(spec: TensorSpec, sizes: Mapping[str, int]) -> Array:
    missing = [dim for dim in spec.shape if isinstance(dim, str) and dim not in sizes]
    if missing:
        raise FeedError(
            f"input {spec} has no size for {missing}",
            why="buffers are allocated once, so every symbol needs a size",
            fix=f"session.bind({', '.join(f'{dim}=1' for dim in missing)}), or session.bind(feeds)",
        )
    return np.zeros([sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape], DTYPES[spec.dtype])
