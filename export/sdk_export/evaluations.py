"""How the files of each target are run here, while they still lie in the staging folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from sdk_export.captured import Arrays
from sdk_export.gate import Run
from sdk_export.taps import overflows_openvino, tap_onnx, tap_openvino
from sdk_runtimes.backends import open_raw
from sdk_runtimes.coreml_io import output_names
from sdk_runtimes.feeds import Array
from sdk_runtimes.isolated import IsolatedProgram
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.session import Session
from sdk_runtimes.specs import ProgramSpec

_ISOLATED_BYTES = 1 << 30
"""Larger programs run in a process of their own: this one holds the model's weights already."""


@dataclass(frozen=True)
class Evaluation:
    """The shipped files, ready to compute.

    Attributes:
        label: what runs them ("onnxruntime:cpu", "mil-evaluator").
        run: the program.
        tap: reads inner values by the names they have in the file.
        strict: the program with every value rounded to the precision that the file says, where `run` may keep
            more (ONNX Runtime's CPU kernels compute fp16 graphs in fp32, and drop the casts in between).
    """

    label: str
    run: Run
    tap: Callable[[Arrays, Sequence[str]], Mapping[str, Array]]
    strict: Run | None = None


@contextmanager
def evaluate_onnx(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """ONNX files on ONNX Runtime's CPU provider."""
    with _session(spec, folder, "onnxruntime:cpu") as run:
        yield _of_onnx("onnxruntime:cpu", run, spec, folder)


@contextmanager
def evaluate_openvino(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """OpenVINO IR on OpenVINO's CPU plugin."""
    with _session(spec, folder, "openvino:cpu") as run:
        strict = partial(_infinite_where_fp16_overflows, run, spec, folder)
        tap = partial(tap_openvino, spec, folder)
        yield Evaluation("openvino:cpu", run, tap, strict if spec.precision == "fp16" else None)


@contextmanager
def evaluate_tensorrt(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """The portable graph on a CPU engine; bf16 on OpenVINO, because ONNX Runtime has no kernels for it."""
    device = "openvino:cpu" if spec.precision == "bf16" else "onnxruntime:cpu"
    with _session(spec, folder, device) as run:
        evaluation = _of_onnx(device, run, spec, folder)
        if spec.precision == "bf16":
            evaluation = replace(evaluation, tap=partial(tap_openvino, spec, folder))
        yield evaluation


@contextmanager
def evaluate_coreml(spec: ProgramSpec, folder: Path) -> Iterator[Evaluation]:
    """A Core ML package in our MIL evaluator."""
    from sdk_export.mil.package import read_package
    from sdk_export.mil.program import operations
    from sdk_export.targets.coreml import replay

    entry = folder / spec.entry
    given = [item.name for item in spec.outputs]
    border = dict(zip(output_names([item.name for item in spec.inputs], given), given, strict=True))

    def tap(feeds: Arrays, names: Sequence[str]) -> Mapping[str, Array]:
        block = read_package(entry).function("main").block
        there = {name for operation in operations(block) for name, _ in operation.outputs}
        # The fp16 conversion of coremltools renames what it touches.
        found = {name: f"{name}_cast_fp16" for name in names if f"{name}_cast_fp16" in there}
        found |= {name: name for name in names if name in there and name not in found}
        results = replay(entry, spec, feeds, taps=set(found.values()) - set(border))
        return {name: results[border.get(renamed, renamed)] for name, renamed in found.items()}

    yield Evaluation("mil-evaluator", lambda feeds: replay(entry, spec, feeds), tap)


@contextmanager
def _session(spec: ProgramSpec, folder: Path, device: str) -> Iterator[Run]:
    if spec.weights_bytes > _ISOLATED_BYTES:
        with IsolatedProgram(spec, folder, device) as program:
            yield program.run
        return
    raw = open_raw(spec, folder, device, OpenOptions())
    with closing(Session(spec, raw)) as session:
        yield session.run


def _of_onnx(label: str, run: Run, spec: ProgramSpec, folder: Path) -> Evaluation:
    def strict(feeds: Arrays) -> Mapping[str, Array]:
        results = tap_onnx(spec, folder, feeds, ())
        return dict(zip([item.name for item in spec.outputs], results.values(), strict=True))

    tap = partial(tap_onnx, spec, folder)
    return Evaluation(label, run, tap, strict if spec.precision == "fp16" else None)


def _infinite_where_fp16_overflows(
    run: Run, spec: ProgramSpec, folder: Path, feeds: Arrays
) -> Mapping[str, Array]:
    """What a device that computes in fp16 would give, as far as a CPU without it can tell."""
    outputs = run(feeds)
    if not overflows_openvino(spec, folder, feeds):
        return outputs
    return {
        name: np.full_like(value, np.inf) if value.dtype.kind == "f" else value
        for name, value in outputs.items()
    }
