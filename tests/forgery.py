"""A bundle, and what a forger would do to it: tests of the reader start here."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, save

from sdk_runtimes.bundle import Bundle
from sdk_runtimes.bundle_writer import seal_bundle, stage_bundle
from sdk_runtimes.goldens import write_goldens
from sdk_runtimes.manifest import (
    SCHEMA_VERSION,
    Golden,
    Manifest,
    OutputQuality,
    Provenance,
    QualityRecord,
    Tolerance,
)
from sdk_runtimes.specs import ProgramSpec, SymbolRange, TensorSpec

GRAPH, WEIGHTS, GOLDEN = "programs/net.onnx", "programs/net.onnx.data", "golden/net.safetensors"
Document = dict[str, Any]

SPEC = ProgramSpec(
    name="net",
    target="onnx",
    precision="fp32",
    inputs=(TensorSpec("x", "float32", ("batch", 8)),),
    outputs=(TensorSpec("y", "float32", ("batch", 4)),),
    files=(GRAPH, WEIGHTS),
    symbols=(SymbolRange("batch", 1, 16),),
    weights_bytes=128,
)
MANIFEST = Manifest(
    schema_version=SCHEMA_VERSION,
    name="net",
    programs=(SPEC,),
    files={},
    quality=(
        QualityRecord(
            SPEC.id,
            "passed",
            "onnxruntime:cpu",
            "",
            Tolerance(1e-4),
            (OutputQuality("y", "sample", 3e-7, 1e-6, 1.0, 130.0),),
        ),
    ),
    goldens=(Golden("net", GOLDEN, 1),),
    provenance=Provenance("tests.Net", {"target": "onnx"}, {"numpy": np.__version__}, 0),
)


def matmul_graph(location: str = "net.onnx.data", **external: str) -> bytes:
    """y = x @ w with w [8, 4] in a file beside the graph."""
    weight = TensorProto(
        name="w", dims=[8, 4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, "offset": "0", "length": "128", **external}.items():
        weight.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def fill(folder: Path) -> None:
    """Puts a graph, its weights, goldens and an asset into a staging folder."""
    weight = np.random.default_rng(0).standard_normal((8, 4), np.float32)
    x = np.random.default_rng(1).standard_normal((2, 8), np.float32)
    (folder / GRAPH).write_bytes(matmul_graph())
    (folder / WEIGHTS).write_bytes(weight.tobytes())
    (folder / "assets/labels.txt").write_text("cat\ndog\n")
    write_goldens(folder / GOLDEN, [({"x": x}, {"y": x @ weight})])


def write(out: Path, *, overwrite: bool = False) -> Bundle:
    """A bundle of one ONNX program."""
    with stage_bundle(out, overwrite=overwrite) as folder:
        fill(folder)
        sealed = seal_bundle(folder, MANIFEST)
    return sealed.at(out)


def edit(out: Path, change: Callable[[Document], object]) -> None:
    """Changes the manifest's JSON."""
    path = out / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def forge(out: Path, relative: str, data: bytes) -> None:
    """Replaces a file, and makes the manifest say that this is right."""
    (out / relative).parent.mkdir(parents=True, exist_ok=True)
    (out / relative).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    edit(out, lambda document: document["files"].update({relative: entry}))


def save_graph(path: Path, model: Any) -> Path:
    """Writes a ModelProto, valid or not."""
    save(model, str(path))
    return path
