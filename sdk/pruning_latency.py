"""How fast networks and single layers are on the target they are pruned for, through real sessions.

A layer alone costs about a second to export, nearly all of it setting up the tracer and the translator. So
many layers are traced and translated as one program, which is then taken apart: every layer becomes a file
and a session of its own, and is timed alone.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.turns import Progress, Timing, by_turns
from sdk_runtimes.backends import open_raw
from sdk_runtimes.errors import ArgumentError
from sdk_runtimes.loading import load
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.session import Session
from sdk_runtimes.specs import ProgramSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sdk_export.captured import Captured, Source

_TOGETHER = 48  # layers that are translated, and held open, at a time: 48 cost little more than one
_LAYER_RUNS = 10
_LAYER_WARMUP = 2
_REFERENCE = "\0reference"  # no name of a network


@dataclass(frozen=True)
class Latency:
    """How long one network takes.

    Attributes:
        ms: its share of the dense network's time in the same turns, times the dense network's own figure.
            Both are the fastest of their runs, so that what else the machine did meanwhile drops out.
        ratio: dense over this one: the speed-up.
        timing: what was measured, disturbances and all.
    """

    ms: float
    ratio: float
    timing: Timing


class LatencyMeter:
    """Times networks and layers on one target and device, relative to the dense network.

    Opened by `latency_meter`; holds the dense network's session.

    Attributes:
        device: where everything runs, `backend:device`.
        dense_ms: the dense network's fastest run when the meter was opened.
    """

    def __init__(self, dense: Session, feeds: Mapping[str, Any], how: "_How") -> None:
        self.device = dense.device
        self._dense, self._feeds, self._how = dense, feeds, how
        # One thread computes as long as it takes whatever else runs here; with several the clock on the wall
        # is the only one that tells how well they share.
        on_one_core = how.threads == 1 and dense.placement.device == "cpu"
        self._clock = time.process_time if on_one_core else time.perf_counter
        self.dense_ms = by_turns({"dense": self._run_dense}, runs=how.runs, warmup=3, clock=self._clock)[
            "dense"
        ].best_ms

    @property
    def label(self) -> str:
        """Target and device, such as "onnx on onnxruntime:cpu, threads=1"."""
        threads = f", threads={self._how.threads}" if self._how.threads else ""
        return f"{self._how.target} on {self.device}{threads}"

    def networks(
        self, networks: Mapping[str, "nn.Module"], *, progress: Progress | None = None
    ) -> dict[str, Latency]:
        """Times several networks with the dense network's inputs, all by turns with it.

        Args:
            networks: label -> network.
            progress: told after every round.

        Raises:
            SdkError: what `sdk.export` and `sdk.load` raise.
        """
        with ExitStack() as stack:
            calls: dict[str, Callable[[], object]] = {_REFERENCE: self._run_dense}
            for label, network in networks.items():
                session, feeds = stack.enter_context(_opened(network, self._how, self.device))
                calls[label] = partial(session.run, feeds)
            timings = by_turns(calls, runs=self._how.runs, warmup=3, progress=progress, clock=self._clock)
        dense_ms = timings.pop(_REFERENCE).best_ms
        return {label: self._relative(timing, dense_ms) for label, timing in timings.items()}

    def layers(
        self, layers: Sequence[tuple["nn.Module", "Tensor"]], *, progress: Progress | None = None
    ) -> list[float]:
        """Milliseconds of layers on their own, each in a session of its own; in the order given.

        The fastest of some runs, by turns in small lots. The first layer runs along with every lot, and lots
        in which it was slower count for less.

        Args:
            layers: a module and its one input each.
            progress: told after every lot.

        Raises:
            SdkError: what `sdk.export` raises, and what the session raises.
        """
        found: list[float] = []
        usual = 0.0
        for start in range(0, len(layers), _TOGETHER):
            lot = layers[start : start + _TOGETHER]
            taken = self._lot([layers[0], *lot])
            usual = usual or taken[0]
            found += [each * usual / taken[0] for each in taken[1:]]
            if progress:
                progress("timing layers", len(found), len(layers))
        return found

    def _lot(self, lot: Sequence[tuple["nn.Module", "Tensor"]]) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="edge-sdk-layers-") as scratch, ExitStack() as stack:
            calls: dict[str, Callable[[], object]] = {}
            options = OpenOptions(threads=self._how.threads)
            specs = written_apart(lot, self._how.target, self._how.precision, Path(scratch))
            for index, (spec, (_, sample)) in enumerate(zip(specs, lot, strict=True)):
                raw = open_raw(spec, Path(scratch), self.device, options)
                stack.callback(raw.close)
                feeds = [sample.detach().numpy()]
                calls[str(index)] = partial(raw.run, feeds)
            timings = by_turns(calls, runs=_LAYER_RUNS, warmup=_LAYER_WARMUP, clock=self._clock)
        return [timings[str(index)].best_ms for index in range(len(lot))]

    def _run_dense(self) -> None:
        self._dense.run(self._feeds)

    def _relative(self, timing: Timing, dense_ms: float) -> Latency:
        share = timing.best_ms / dense_ms
        return Latency(self.dense_ms * share, 1 / share, timing)


@dataclass(frozen=True)
class _How:
    target: str
    precision: str
    device: str
    threads: int | None
    runs: int
    sample_inputs: Any
    sample_kwargs: Mapping[str, Any] | None


@contextmanager
def latency_meter(
    dense: "nn.Module",
    sample_inputs: Any,
    *,
    sample_kwargs: Mapping[str, Any] | None = None,
    target: str = "onnx",
    device: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    runs: int = 80,
) -> Iterator[LatencyMeter]:
    """Opens a meter for one network and its pruned forms.

    Args:
        dense: the network before pruning; not changed.
        sample_inputs: as `sdk.export` takes them; latencies are those at these sizes.
        sample_kwargs: keyword arguments beside them.
        target: the format that will ship.
        device: as `sdk.load` takes it; where the dense network runs, everything is measured.
        precision: of the programs.
        threads: of one run; None leaves the number to the engine.
        runs: measured runs of each network.

    Raises:
        ArgumentError: fewer than one run.
        SdkError: what `sdk.export` and `sdk.load` raise.
    """
    if runs < 1:
        raise ArgumentError(f"runs is {runs}", why="there must be something to measure", fix="runs=80")
    how = _How(target, precision, device, threads, runs, sample_inputs, sample_kwargs)
    with _opened(dense, how, device) as (session, feeds):
        yield LatencyMeter(session, feeds, how)


@contextmanager
def _opened(network: "nn.Module", how: _How, device: str) -> Iterator[tuple[Session, Mapping[str, Any]]]:
    """A session of a network that was exported to a temporary bundle, and its feeds."""
    from sdk_export.capture import capture

    with tempfile.TemporaryDirectory(prefix="edge-sdk-latency-") as scratch:
        captured = capture(
            network, name="network", sample_inputs=how.sample_inputs, sample_kwargs=how.sample_kwargs
        )
        bundle = _bundle(captured, how, Path(scratch) / "network.bundle")
        with load(bundle, device, target=how.target, threads=how.threads, replay=False) as session:
            yield session, captured.samples


def _bundle(captured: "Captured", how: _How, out: Path) -> Any:
    """Without the gate: it is timed and thrown away, and what ships is gated when it is exported."""
    from sdk_export.build import Order, build_bundle
    from sdk_export.gate import Gate

    order = Order(
        out=out,
        targets=(how.target,),
        precision=how.precision,
        gate=Gate(enabled=False),
        overwrite=False,
        model="latency",
    )
    return build_bundle(captured, order, lambda _stage, _done, _total: None)


def written_apart(
    lot: Sequence[tuple["nn.Module", "Tensor"]], target: str, precision: str, folder: Path
) -> list[ProgramSpec]:
    """Writes every module as a program of its own."""
    from sdk_export.capture import capture
    from sdk_export.targets.table import find_target

    row = find_target(target, precision)
    sources: Sequence[Source]
    if row.takes_onnx:
        sources = _cut(lot, folder / "parts")
    else:
        sources = [
            capture(module, name=f"layer{index}", sample_inputs=sample)
            for index, (module, sample) in enumerate(lot)
        ]
    return [
        ProgramSpec(
            name=source.name,
            target=target,
            precision=precision,
            inputs=source.inputs,
            outputs=source.outputs,
            files=tuple(row.write(source, precision, folder)),
            options=dict(row.options(source)),
        )
        for source in sources
    ]


def _cut(lot: Sequence[tuple["nn.Module", "Tensor"]], folder: Path) -> list["Source"]:
    """Traces and translates modules as one program and cuts that into files, one a module."""
    import onnx_ir as ir

    from sdk_export.capture import capture
    from sdk_export.captured import CapturedOnnx
    from sdk_export.onnx_lowering import build_model, forget_translation

    captured = capture(_side_by_side([module for module, _ in lot]), sample_inputs=([x for _, x in lot],))
    try:
        model = build_model(captured, "fp32")
    finally:
        forget_translation()
    folder.mkdir()
    sources: list[Source] = []
    for taken, given in zip(captured.inputs, captured.outputs, strict=True):
        name = f"layer{len(sources)}"
        part = ir.convenience.extract(model.graph, [taken.name], [given.name])
        ir.save(ir.Model(part, ir_version=model.ir_version), folder / f"{name}.onnx")
        sources.append(
            CapturedOnnx(
                name, folder / f"{name}.onnx", (taken,), (given,), (), captured.samples, captured.reference
            )
        )
    return sources


def _side_by_side(modules: Sequence["nn.Module"]) -> "nn.Module":
    """A module that applies each of some modules to an input of its own."""
    from torch import nn

    class SideBySide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(modules)

        def forward(self, xs: list["Tensor"]) -> list["Tensor"]:
            return [part(x) for part, x in zip(self.parts, xs, strict=True)]

    return SideBySide()
