"""Tiny ONNX programs with their specs and truths, and bundles of them. Milliseconds to write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, save

from sdk_runtimes.bundle import Bundle, open_bundle
from sdk_runtimes.bundle_writer import seal_bundle, stage_bundle
from sdk_runtimes.feeds import Array
from sdk_runtimes.goldens import write_goldens
from sdk_runtimes.manifest import SCHEMA_VERSION, Golden, Manifest, Provenance, QualityRecord, Tolerance
from sdk_runtimes.specs import Dim, ProgramSpec, SymbolRange, TensorSpec

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Tiny:
    """A program, its graph, and what it computes."""

    spec: ProgramSpec
    model: ModelProto
    truth: Callable[[Feeds], dict[str, Array]]

    def write(self, folder: Path) -> ProgramSpec:
        """Puts the graph where the spec says."""
        path = folder / self.spec.entry
        path.parent.mkdir(parents=True, exist_ok=True)
        save(self.model, str(path))
        return self.spec


def affine(rows: Dim = 2, *, name: str = "affine", target: str = "onnx", precision: str = "fp32") -> Tiny:
    """y = x @ w + 1, z = sum(y), on [rows, 8] floats."""
    weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Add", ["xw", "one"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["z"], keepdims=0),
    ]
    weights = {"w": weight, "one": np.ones(4, np.float32)}
    shapes = {"x": (rows, 8), "y": (rows, 4), "z": ()}

    def truth(feeds: Feeds) -> dict[str, Array]:
        y = feeds["x"] @ weight + 1
        return {"y": y, "z": np.asarray(y.sum(dtype=np.float32))}

    return _tiny(name, target, precision, nodes, weights, ["x"], ["y", "z"], shapes, truth)


def cache_loop(heads: int = 2, width: int = 32, *, in_parts: bool = False) -> Tiny:
    """Attention without a mask over a growing number of keys: softmax(q k^T) v, in parts or not."""
    parts = [
        helper.make_node("ReduceMax", ["scores", "last"], ["top"]),
        helper.make_node("Sub", ["scores", "top"], ["shifted"]),
        helper.make_node("Exp", ["shifted"], ["raised"]),
        helper.make_node("ReduceSum", ["raised", "last"], ["total"]),
        helper.make_node("Div", ["raised", "total"], ["weights"]),
    ]
    whole = [helper.make_node("Softmax", ["scores"], ["weights"], axis=-1)]
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        *(parts if in_parts else whole),
        helper.make_node("MatMul", ["weights", "v"], ["o"]),
    ]
    constants = {"last": np.array([-1])} if in_parts else {}
    shape = (1, heads, "keys", width)
    shapes = {"q": (1, heads, 4, width), "k": shape, "v": shape, "o": (1, heads, 4, width)}

    def truth(feeds: Feeds) -> dict[str, Array]:
        scores = feeds["q"] @ feeds["k"].swapaxes(-1, -2)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return {"o": weights / weights.sum(-1, keepdims=True) @ feeds["v"]}

    names = ["q", "k", "v"], ["o"]
    return _tiny("loop", "onnx", "fp32", nodes, constants, *names, shapes, truth, maximum=256)


def growing_cache() -> Tiny:
    """Joins past and new keys; scalar and boolean inputs and outputs beside them."""
    nodes = [
        helper.make_node("Concat", ["past", "new"], ["now"], axis=1),
        helper.make_node("ReduceSum", ["now"], ["total"], keepdims=0),
        helper.make_node("Not", ["flag"], ["negated"]),
    ]
    shapes: dict[str, tuple[Dim, ...]] = {
        "past": (1, "p", 4),
        "new": (1, "n", 4),
        "flag": (),
        "now": (1, "n+p", 4),
        "total": (),
        "negated": (),
    }

    def truth(feeds: Feeds) -> dict[str, Array]:
        now = np.concatenate([feeds["past"], feeds["new"]], axis=1)
        return {"now": now, "total": np.asarray(now.sum()), "negated": np.asarray(~feeds["flag"])}

    names = ["past", "new", "flag"], ["now", "total", "negated"]
    return _tiny("cache", "onnx", "fp32", nodes, {}, *names, shapes, truth, booleans=("flag", "negated"))


def random_feeds(spec: ProgramSpec, *, seed: int = 0, **sizes: int) -> dict[str, Array]:
    """Normal floats for every input; symbols take their size from `sizes`."""
    draws = np.random.default_rng(seed)
    return {
        item.name: draws.standard_normal([sizes.get(str(dim), dim) for dim in item.shape]).astype(item.dtype)
        for item in spec.inputs
    }


def write_bundle(
    out: Path,
    programs: Sequence[Tiny],
    *,
    goldens: int = 2,
    scale_truth: float = 1.0,
    rel_rmse: float = 1e-5,
    copies: Mapping[str, Callable[[Path, Path], None]] | None = None,
) -> Bundle:
    """A sealed bundle.

    Args:
        out: where.
        programs: one a target; those of the same name share goldens.
        goldens: cases of each.
        scale_truth: other than 1: the goldens tell of another model.
        rel_rmse: tolerance of every record.
        copies: target -> how its entry is made from the ONNX file of the same name.
    """
    with stage_bundle(out, overwrite=False) as staging:
        for tiny in programs:
            make = (copies or {}).get(tiny.spec.target)
            if make:
                onnx_file = staging / "programs" / "temporary.onnx"
                save(tiny.model, str(onnx_file))
                make(onnx_file, staging / tiny.spec.entry)
                onnx_file.unlink()
            else:
                tiny.write(staging)
        records = []
        for tiny in {tiny.spec.name: tiny for tiny in programs}.values():
            cases = [random_feeds(tiny.spec, seed=seed, rows=3) for seed in range(goldens)]
            told = [
                (case, {k: (v * scale_truth).astype(v.dtype) for k, v in tiny.truth(case).items()})
                for case in cases
            ]
            if goldens:
                file = f"golden/{tiny.spec.name}.safetensors"
                write_goldens(staging / file, told)
                records.append(Golden(tiny.spec.name, file, goldens))
        seal_bundle(staging, _manifest([tiny.spec for tiny in programs], records, rel_rmse))
    return open_bundle(out)


def _manifest(specs: Sequence[ProgramSpec], goldens: Sequence[Golden], rel_rmse: float) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name="tiny",
        programs=tuple(specs),
        files={},
        quality=tuple(
            QualityRecord(spec.id, "unverified", "", "made by a test", Tolerance(rel_rmse)) for spec in specs
        ),
        goldens=tuple(goldens),
        provenance=Provenance("Tiny", {}, {}, 0),
    )


def _tiny(
    name: str,
    target: str,
    precision: str,
    nodes: Sequence[NodeProto],
    weights: Mapping[str, Array],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: Mapping[str, tuple[Dim, ...]],
    truth: Callable[[Feeds], dict[str, Array]],
    *,
    booleans: Sequence[str] = (),
    maximum: int = 64,
) -> Tiny:
    def info(tensor: str) -> ValueInfoProto:
        kind = TensorProto.BOOL if tensor in booleans else TensorProto.FLOAT
        return helper.make_tensor_value_info(tensor, kind, list(shapes[tensor]))

    def spec_of(tensor: str) -> TensorSpec:
        return TensorSpec(tensor, "bool" if tensor in booleans else "float32", shapes[tensor])

    graph = helper.make_graph(
        list(nodes),
        name,
        [info(tensor) for tensor in inputs],
        [info(tensor) for tensor in outputs],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    symbols = dict.fromkeys(dim for tensor in inputs for dim in shapes[tensor] if isinstance(dim, str))
    suffix = {"openvino": "xml", "tensorrt": "trt.onnx"}.get(target, target)
    spec = ProgramSpec(
        name=name,
        target=target,
        precision=precision,
        inputs=tuple(spec_of(tensor) for tensor in inputs),
        outputs=tuple(spec_of(tensor) for tensor in outputs),
        files=(f"programs/{name}.{suffix}", *([f"programs/{name}.bin"] if target == "openvino" else [])),
        symbols=tuple(SymbolRange(symbol, 0, maximum) for symbol in symbols),
        weights_bytes=sum(array.nbytes for array in weights.values()),
        activations_bytes=1024,
    )
    return Tiny(
        spec, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), truth
    )


def with_spec(tiny: Tiny, **changes: object) -> Tiny:
    """The same graph under a changed spec."""
    return replace(tiny, spec=replace(tiny.spec, **changes))  # type: ignore[arg-type]  # fields by name
