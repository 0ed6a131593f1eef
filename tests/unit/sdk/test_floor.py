import time
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from sdk.floor import Peaks, floor_of, gemm_run, measure_bandwidth, peaks_of, program_bytes, usable_threads
from sdk.matmul_model import matmul_model
from sdk.turns import summarize
from sdk_runtimes.specs import ProgramSpec, SymbolRange, TensorSpec

SPEC = ProgramSpec(
    name="net",
    target="onnx",
    precision="fp32",
    inputs=(TensorSpec("x", "float32", ("batch", 8)),),
    outputs=(TensorSpec("y", "float16", ("2*batch", 4)),),
    files=("programs/net.onnx",),
    symbols=(SymbolRange("batch", 1, 8),),
    weights_bytes=1000,
    flops=10**9,
)


def test_handwritten_onnx_is_what_the_onnx_package_reads():
    model = onnx.load_from_string(matmul_model(8))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(3).standard_normal((8, 8), np.float32)
    np.testing.assert_allclose(session.run(None, {"X": x})[0], x @ weights, rtol=1e-5, atol=1e-5)


def test_a_size_beyond_one_varint_group_is_written():
    model = onnx.load_from_string(matmul_model(300))
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [300, 300]


def test_bytes_are_weights_inputs_and_outputs():
    # an expression over symbols counts as 1: the bound stays a bound
    assert program_bytes(SPEC, {"batch": 4}) == 1000 + 4 * 8 * 4 + 1 * 4 * 2


def timed(call):
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def test_peaks_and_floor_are_consistent():
    best_ms = summarize(timed(gemm_run(1))).best_ms
    peaks = peaks_of(1, best_ms)
    assert peaks.threads == 1
    assert peaks.gemm_gflops > 0
    assert peaks_of(1, best_ms / 2).gemm_gflops == pytest.approx(2 * peaks.gemm_gflops)
    floor = floor_of(SPEC, {"batch": 1}, peaks)
    assert floor is not None
    assert floor.compute_ms == pytest.approx(1e3 * 1e9 / (peaks.gemm_gflops * 1e9))
    assert floor.memory_ms == pytest.approx(program_bytes(SPEC, {"batch": 1}) / floor.bandwidth_gbs / 1e6)
    assert floor.floor_ms == max(floor.compute_ms, floor.memory_ms)
    assert floor.bound == "compute"  # a GFLOP against a kilobyte
    assert floor.share(2 * floor.floor_ms) == pytest.approx(0.5)


def test_a_program_of_weights_alone_is_bound_by_memory():
    floor = floor_of(replace(SPEC, flops=1, weights_bytes=32 << 20), {}, Peaks(1, 100.0))
    assert floor is not None
    assert floor.bound == "memory"
    assert floor.floor_ms == floor.memory_ms > 0


def test_unknown_flops_give_no_floor():
    assert floor_of(replace(SPEC, flops=0), {}, Peaks(1, 100.0)) is None


def test_bandwidth_is_positive_for_tiny_working_sets():
    assert measure_bandwidth(1, 1) > 0


def test_at_least_one_core_is_usable():
    assert usable_threads() >= 1
