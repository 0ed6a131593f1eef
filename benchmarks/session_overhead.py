"""Question: what do our checks, metrics and result handling add to the raw engine call?

Both sides run the same tiny graph in the same process, on the same engine object with the same options, by
turns. The graph (Add, Relu on 64 floats) computes next to nothing, so a median is all overhead.

    onnxruntime   run:  InferenceSession.run(names, {"x": x})   bind:  run_with_iobinding(binding)
    openvino      run:  InferRequest.infer({0: x})              bind:  InferRequest.infer(share_outputs=True)

OpenVINO's own way to feed an array copies it through several Python layers; the row "run, tensor set" is what
remains if the caller sets a shared tensor by hand, infers, and copies the result out: the floor.

Bars (issue 2): `Session.run` adds at most 15 µs, `bind().run` at most 5 µs.

    python -m benchmarks.session_overhead [--runs 2000]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from sdk_runtimes.backends import OpenOptions, open_raw
from sdk_runtimes.require import require
from sdk_runtimes.session import Session
from sdk_runtimes.specs import ProgramSpec, SymbolRange, TensorSpec

TURN = 50  # runs before the other side has its turn: enough to warm caches, few against drift of the machine
BARS_US = {"run": 15.0, "bind": 5.0}

Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        engine: backend.
        shape: "static" or "dynamic".
        call: "run" or "bind".
        raw_us: median of the raw engine call.
        floor_us: median of the least work that gives the caller his own arrays; equal to raw where it does.
        ours_us: median of ours.
    """

    engine: str
    shape: str
    call: str
    raw_us: float
    floor_us: float
    ours_us: float

    @property
    def added_us(self) -> float:
        """What we add to the faster of the two others."""
        return self.ours_us - min(self.raw_us, self.floor_us)


def main() -> None:
    """Measures, prints a table and a last line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="measured runs of each side")
    runs = parser.parse_args().runs
    rows = [
        row
        for batch in (1, "batch")
        for engine, raw_calls in (("onnxruntime", onnxruntime_calls), ("openvino", openvino_calls))
        for row in measure(engine, batch, raw_calls, runs)
    ]
    names = ("engine", "shape", "call", "raw µs", "floor µs", "ours µs", "ratio", "added µs", "bar µs")
    print("  ".join(f"{name:>11}" for name in names))
    for row in rows:
        print("  ".join(f"{cell:>11}" for cell in cells(row)))
    print(json.dumps([vars(row) | {"added_us": round(row.added_us, 2)} for row in rows]))


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    bar = BARS_US[row.call]
    figures = (row.raw_us, row.floor_us, row.ours_us, row.ours_us / row.raw_us, row.added_us)
    verdict = "" if row.added_us <= bar else " MISSED"
    return (row.engine, row.shape, row.call, *(f"{figure:.2f}" for figure in figures), f"{bar:.0f}{verdict}")


def measure(
    engine: str, batch: int | str, raw_calls: Callable[[Any, np.ndarray], Calls], runs: int
) -> list[Row]:
    """Times one engine, static or with a dynamic batch."""
    spec = tiny_spec(batch)
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, spec.entry).write_bytes(tiny_model(batch))
        raw = open_raw(spec, Path(folder), f"{engine}:cpu", OpenOptions(threads=1))
        session = Session(spec, raw)
        binding = session.bind({"x": x})
        feeds = {"x": x}
        ours: Calls = {"run": lambda: session.run(feeds), "bind": binding.run}
        times = by_turns({**raw_calls(raw, x), **{f"ours {name}": call for name, call in ours.items()}}, runs)
    shape = "static" if isinstance(batch, int) else "dynamic"
    return [
        Row(
            engine,
            shape,
            call,
            raw_us=times[f"raw {call}"],
            floor_us=times.get(f"floor {call}", times[f"raw {call}"]),
            ours_us=times[f"ours {call}"],
        )
        for call in ours
    ]


def onnxruntime_calls(raw: Any, x: np.ndarray) -> Calls:
    """ONNX Runtime's own calls on our engine session."""
    engine = raw._engine  # the very object that ours runs on
    binding = engine.io_binding()
    y = np.empty_like(x)
    binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
    return {
        "raw run": lambda: engine.run(["y"], {"x": x}),
        "raw bind": lambda: engine.run_with_iobinding(binding),
    }


def openvino_calls(raw: Any, x: np.ndarray) -> Calls:
    """OpenVINO's own calls on our compiled model."""
    openvino = require("openvino", needed_for="this benchmark")
    compiled = raw._compiled  # the very object that ours runs on
    request, by_hand, bound = (compiled.create_infer_request() for _ in range(3))
    bound.set_input_tensor(0, openvino.Tensor(x, shared_memory=True))
    bound.set_output_tensor(0, openvino.Tensor(np.empty_like(x), shared_memory=True))

    def floor() -> np.ndarray:
        by_hand.set_input_tensor(0, openvino.Tensor(x, shared_memory=True))
        result: np.ndarray = by_hand.infer().to_tuple()[0]
        return result

    return {
        "raw run": lambda: request.infer({0: x}),
        "floor run": floor,
        "raw bind": lambda: bound.infer(share_outputs=True),
    }


def by_turns(calls: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median of each call in µs."""
    times: dict[str, list[int]] = {name: [] for name in calls}
    clock = time.perf_counter_ns
    for turn in range(runs // TURN + 1):
        for name, call in calls.items():
            for _ in range(TURN):
                start = clock()
                call()
                elapsed = clock() - start
                if turn:  # the first turn warms up
                    times[name].append(elapsed)
    return {name: median(taken) / 1e3 for name, taken in times.items()}


def tiny_spec(batch: int | str) -> ProgramSpec:
    """A graph that computes next to nothing: y = relu(x + 1) on [batch, 64] floats."""
    return ProgramSpec(
        name="tiny",
        target="onnx",
        precision="fp32",
        inputs=(TensorSpec("x", "float32", (batch, 64)),),
        outputs=(TensorSpec("y", "float32", (batch, 64)),),
        files=("tiny.onnx",),
        symbols=() if isinstance(batch, int) else (SymbolRange(batch, 1, 8),),
    )


def tiny_model(batch: int | str) -> bytes:
    """The graph of `tiny_spec` as ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    shape = [batch, 64]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["sum"]), helper.make_node("Relu", ["sum"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.ones(64, np.float32), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
