import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from sdk_runtimes.errors import MemoryLimitError
from sdk_runtimes.memory import estimate, must_be_lean
from sdk_runtimes.specs import ProgramSpec

SPEC = ProgramSpec("net", "onnx", "fp32", (), (), ("net.onnx",), weights_bytes=10**9, activations_bytes=10**8)

_CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from sdk_runtimes.backends import OpenOptions, open_raw
from sdk_runtimes.specs import ProgramSpec, TensorSpec

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))

told = json.loads(sys.argv[1])
x = np.zeros(told["shape"], np.float32)
x[...] = 1
spec = ProgramSpec("net", "onnx", "fp32", (TensorSpec("x", "float32", x.shape),),
                   (TensorSpec("y", "float32", (1,)),), ("net.onnx",), weights_bytes=told["weights_bytes"])
before = status("VmRSS")
session = open_raw(spec, Path(told["folder"]), told["device"], OpenOptions(threads=1, lean=told["lean"]))
for _ in range(3):
    session.run([x])
print(status("VmHWM") - before)
"""


def write(folder: Path, nodes: list[Any], weights: dict[str, Any], shape: list[int]) -> int:
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", info, out, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    save(model, str(folder / "net.onnx"), save_as_external_data=True, location="net.bin")
    return sum(array.nbytes for array in weights.values())


def matmuls(folder: Path) -> tuple[list[int], int, int]:
    """8 products with 16 MB each."""
    draws = np.random.default_rng(0)
    weights = {f"w{i}": draws.standard_normal((2048, 2048), np.float32) for i in range(8)}
    names = ["x", *(f"h{i}" for i in range(7)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(8)]
    return [16, 2048], write(folder, nodes, weights, [16, 2048]), 2 * 16 * 2048 * 4


def convolutions(folder: Path) -> tuple[list[int], int, int]:
    """8 convolutions with 9.4 MB each."""
    draws = np.random.default_rng(0)
    weights = {f"w{i}": draws.standard_normal((512, 512, 3, 3), np.float32) for i in range(8)}
    names = ["x", *(f"h{i}" for i in range(7)), "y"]
    nodes = [
        helper.make_node("Conv", [names[i], f"w{i}"], [names[i + 1]], pads=[1, 1, 1, 1]) for i in range(8)
    ]
    return [1, 512, 14, 14], write(folder, nodes, weights, [1, 512, 14, 14]), 2 * 512 * 14 * 14 * 4


def maps(folder: Path) -> tuple[list[int], int, int]:
    """SiLU on maps of 67 MB, three of them alive at a time; no weights."""
    nodes, size = [], 64 * 512 * 512 * 4
    names = ["x", "h0", "h1", "y"]
    for i in range(3):
        nodes += [
            helper.make_node("Sigmoid", [names[i]], [f"s{i}"]),
            helper.make_node("Mul", [names[i], f"s{i}"], [names[i + 1]]),
        ]
    return [1, 64, 512, 512], write(folder, nodes, {}, [1, 64, 512, 512]), 3 * size


def grown(folder: Path, device: str, shape: list[int], weights_bytes: int, *, lean: bool) -> int:
    told = {
        "folder": str(folder),
        "device": device,
        "shape": shape,
        "weights_bytes": weights_bytes,
        "lean": lean,
    }
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(told)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("network", [matmuls, convolutions, maps])
@pytest.mark.parametrize("lean", [False, True], ids=["ample", "lean"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_estimate_is_an_upper_bound_within_3x(
    tmp_path: Path, network: Any, backend: str, lean: bool
) -> None:
    shape, weights_bytes, activations_bytes = network(tmp_path)
    spec = replace(SPEC, weights_bytes=weights_bytes, activations_bytes=activations_bytes)
    told = estimate(spec, backend, lean=lean).total_bytes
    measured = grown(tmp_path, f"{backend}:cpu", shape, weights_bytes, lean=lean)
    assert measured <= told <= 3 * measured, f"estimate {told / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB"


def test_the_parts_add_up_and_are_told() -> None:
    seen = estimate(SPEC, "onnxruntime")
    assert seen.total_bytes == seen.weights_bytes + seen.activations_bytes + seen.engine_bytes
    assert str(seen) == "2.85 GB = weights 2.6 GB + activations 200 MB + engine 50 MB"


def test_half_weights_are_widened() -> None:
    half = replace(SPEC, precision="fp16", weights_bytes=SPEC.weights_bytes // 2)
    assert estimate(half, "onnxruntime").weights_bytes == estimate(SPEC, "onnxruntime").weights_bytes


def test_engines_that_were_not_measured_get_the_most() -> None:
    unknown = estimate(SPEC, "tensorrt").total_bytes
    assert unknown >= max(estimate(SPEC, known).total_bytes for known in ("onnxruntime", "openvino"))


@pytest.mark.parametrize(
    ("limit", "lean"), [(None, False), (10**10, False), (2850 * 10**6, False), (2849 * 10**6, True)]
)
def test_lean_only_where_it_must_be(limit: int | None, lean: bool) -> None:
    assert must_be_lean(SPEC, "onnxruntime", limit) is lean


def test_what_does_not_fit_is_refused_with_the_estimate() -> None:
    with pytest.raises(
        MemoryLimitError, match=r'1\.7 GB = weights 1\.5 GB .*the limit is 1 GB(?s:.)*"1700MB"'
    ):
        must_be_lean(SPEC, "onnxruntime", 10**9)
