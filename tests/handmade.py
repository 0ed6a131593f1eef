"""A bundle made without torch or onnx: `Y = X @ W` in ONNX form, with a golden. Milliseconds to write."""

from pathlib import Path

import numpy as np
import onnxruntime

from sdk.matmul_model import matmul_model
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
from sdk_runtimes.specs import ProgramSpec, TensorSpec

SIZE = 16


def matmul_bundle(out: Path, *, verdict: str = "passed", name: str = "matmul") -> Bundle:
    """Writes the bundle; verdict "passed", "unverified", or "none" for a gate that was off."""
    spec = ProgramSpec(
        name=name,
        target="onnx",
        precision="fp32",
        inputs=(TensorSpec("X", "float32", (SIZE, SIZE)),),
        outputs=(TensorSpec("Y", "float32", (SIZE, SIZE)),),
        files=(f"programs/{name}.onnx",),
        weights_bytes=4 * SIZE * SIZE,
        activations_bytes=8 * SIZE * SIZE,
        flops=2 * SIZE**3,
    )
    with stage_bundle(out, overwrite=False) as staging:
        graph = matmul_model(SIZE)
        (staging / spec.entry).write_bytes(graph)
        feeds = {"X": np.random.default_rng(1).standard_normal((SIZE, SIZE), np.float32)}
        engine = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        results = {"Y": engine.run(None, feeds)[0]}
        write_goldens(staging / f"golden/{name}.safetensors", [(feeds, results)])
        seal_bundle(staging, _manifest(spec, verdict))
    from sdk_runtimes.bundle import open_bundle

    return open_bundle(out)


def _manifest(spec: ProgramSpec, verdict: str) -> Manifest:
    records = {
        "passed": (
            QualityRecord(
                spec.id,
                "passed",
                "onnxruntime:cpu",
                "",
                Tolerance(1e-4),
                (OutputQuality("Y", "sample", 1e-7, 1e-6, 1.0, 140.0),),
            ),
        ),
        "unverified": (QualityRecord(spec.id, "unverified", "", "no Mac <here>", Tolerance(1e-4)),),
        "none": (),
    }
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=spec.name,
        programs=(spec,),
        files={},
        quality=records[verdict],
        goldens=(Golden(spec.name, f"golden/{spec.name}.safetensors", 1),),
        provenance=Provenance("tests.handmade", {"target": "onnx"}, {"numpy": np.__version__}, 0),
        licence="Apache-2.0",
    )
