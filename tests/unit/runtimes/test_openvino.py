import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

import tiny_programs as tiny
from sdk_runtimes.errors import DeviceError, MissingExtraError, SessionError, UnknownChoiceError
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.sessions import openvino as backend

ONE_THREAD = OpenOptions(threads=1)


def opened(
    program: tiny.Tiny, folder: Path, device: str = "openvino:cpu", options: OpenOptions = ONE_THREAD
) -> backend.OpenvinoSession:
    return backend.open_session(program.write(folder), folder, device, options)


def compiled_setting(session: backend.OpenvinoSession, key: str) -> str:
    assert session._compiled is not None
    return str(session._compiled.get_property(key))


def worst_error(session: backend.OpenvinoSession, program: tiny.Tiny, lengths: tuple[int, ...]) -> float:
    worst = 0.0
    for length in lengths:
        feeds = tiny.random_feeds(program.spec, seed=length, keys=length)
        got = session.run(list(feeds.values()))[0]
        worst = max(worst, float(np.abs(got - program.truth(feeds)["o"]).max()))
    return worst


GROWING = (1, 5, 16, 40, 100)  # one key first, then 16 and more: what OpenVINO gets wrong


@pytest.mark.parametrize("device", ["openvino:cpu", "openvino:auto"])
@pytest.mark.parametrize("in_parts", [False, True], ids=["whole softmax", "softmax in parts"])
def test_attention_over_a_growing_cache_is_right(tmp_path: Path, device: str, in_parts: bool) -> None:
    program = tiny.cache_loop(in_parts=in_parts)
    assert worst_error(opened(program, tmp_path, device), program, GROWING) < 1e-4


def test_attention_over_a_growing_cache_is_right_from_the_compiled_cache(tmp_path: Path) -> None:
    program = tiny.cache_loop()
    options = OpenOptions(threads=1, cache_path=tmp_path / "blobs")
    for _ in range(2):
        assert worst_error(opened(program, tmp_path, options=options), program, GROWING) < 1e-4


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole softmax", "softmax in parts"])
def test_the_attention_guard_is_still_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_parts: bool
) -> None:
    """Fails once OpenVINO is mended: then restrict the guard to the versions before."""
    monkeypatch.setattr(backend, "has_dynamic_attention", lambda _model: False)
    program = tiny.cache_loop(in_parts=in_parts)
    assert worst_error(opened(program, tmp_path), program, GROWING) > 1.0


def by_hand(scores: openvino.Node) -> openvino.Node:
    return ops.softmax(scores, -1)


def in_parts(scores: openvino.Node) -> openvino.Node:
    """What OpenVINO itself puts together to a Softmax."""
    last = ops.constant(np.array([-1]))
    raised = ops.exp(ops.subtract(scores, ops.reduce_max(scores, last, keep_dims=True)))
    return ops.divide(raised, ops.reduce_sum(raised, last, keep_dims=True))


Softmax = Callable[[openvino.Node], openvino.Node]


def attention(keys: int, width: int = 32, *, softmax: Softmax | None = None) -> openvino.Model:
    q, k, v = (ops.parameter([1, 2, length, width], np.float32) for length in (-1, keys, keys))
    if softmax is None:
        return openvino.Model([ops.scaled_dot_product_attention(q, k, v)], [q, k, v])
    scores = ops.matmul(q, k, transpose_a=False, transpose_b=True)
    weighted = ops.matmul(softmax(scores), v, transpose_a=False, transpose_b=False)
    return openvino.Model([weighted], [q, k, v])


def in_a_branch(body: openvino.Model) -> openvino.Model:
    inner = openvino.Model([ops.relu(p := ops.parameter([1, 2, -1, 32], np.float32))], [p])
    gate, outer = ops.parameter([], bool), [ops.parameter([1, 2, -1, 32], np.float32) for _ in range(3)]
    branch = ops.if_op(gate)
    branch.set_then_body(body)
    branch.set_else_body(inner)
    for port, value in enumerate(outer):
        branch.set_input(
            value.output(0), body.get_parameters()[port], inner.get_parameters()[0] if not port else None
        )
    result = branch.set_output(body.get_results()[0], inner.get_results()[0])
    return openvino.Model([result], [gate, *outer])


@pytest.mark.parametrize(
    ("model", "guarded"),
    [
        (attention(-1), True),
        (attention(-1, softmax=by_hand), True),
        (attention(-1, softmax=in_parts), True),
        (attention(16), False),
        (attention(16, softmax=by_hand), False),
        (attention(16, softmax=in_parts), False),
        (attention(16, -1), True),
        (in_a_branch(attention(-1)), True),
    ],
    ids=["whole", "by hand", "in parts", "fixed", "fixed by hand", "fixed in parts", "width", "in a branch"],
)
def test_only_attention_over_a_dynamic_length_is_guarded(model: openvino.Model, guarded: bool) -> None:
    assert backend.has_dynamic_attention(model) is guarded


@pytest.mark.parametrize(
    ("precision", "unit", "capabilities", "hint", "told"),
    [
        ("fp32", "cpu", ["BF16", "FP32"], "f32", ""),
        ("bf16", "cpu", ["BF16", "FP32"], "bf16", ""),
        ("bf16", "cpu", ["FP32"], "f32", "bf16 is computed in fp32"),
        ("fp16", "cpu", ["BF16", "FP32"], "f32", "fp16 is computed in fp32"),
        ("fp16", "cpu", ["FP16", "FP32"], "f16", ""),
        ("fp16", "gpu", ["FP16", "FP32"], "f16", ""),
        ("fp32", "npu", ["FP16"], "f16", "fp32 is computed in fp16"),
        ("fp16", "npu", ["FP16"], "f16", ""),
    ],
)
def test_the_precision_hint(precision: str, unit: str, capabilities: list[str], hint: str, told: str) -> None:
    given, reasons = backend.precision_hint(precision, unit, capabilities)
    assert given == hint
    assert "".join(reasons).startswith(told)
    assert bool(reasons) is bool(told)


def test_an_unknown_precision_lists_the_known() -> None:
    with pytest.raises(UnknownChoiceError, match="'fp32', 'fp16', 'bf16'"):
        backend.precision_hint("fp8", "cpu", [])


def test_fp32_is_computed_in_fp32_throughout(tmp_path: Path) -> None:
    session = opened(tiny.affine(), tmp_path)
    assert compiled_setting(session, "INFERENCE_PRECISION_HINT") == "<Type: 'float32'>"
    assert session._compiled is not None
    nodes = session._compiled.get_runtime_model().get_ordered_ops()
    kinds = {node.get_rt_info()["runtimePrecision"].astype(str) for node in nodes}
    assert "f32" in kinds
    assert not kinds & {"bf16", "f16"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("EXECUTION_MODE_HINT", "ExecutionMode.ACCURACY"),
        ("PERFORMANCE_HINT", "LATENCY"),
        ("INFERENCE_NUM_THREADS", "1"),
        ("KV_CACHE_PRECISION", "<Type: 'float32'>"),
        ("DYNAMIC_QUANTIZATION_GROUP_SIZE", "0"),
    ],
)
def test_nothing_numeric_is_left_to_openvino(tmp_path: Path, key: str, value: str) -> None:
    assert compiled_setting(opened(tiny.affine(), tmp_path), key) == value


def test_ir_files_open_as_well(tmp_path: Path) -> None:
    program = tiny.affine()
    program.write(tmp_path)
    openvino.save_model(
        openvino.convert_model(tmp_path / program.spec.entry), tmp_path / "programs/affine.xml"
    )
    spec = replace(program.spec, target="openvino", files=("programs/affine.xml", "programs/affine.bin"))
    session = backend.open_session(spec, tmp_path, "openvino:cpu", ONE_THREAD)
    feeds = tiny.random_feeds(spec)
    for got, wanted in zip(session.run([feeds["x"]]), program.truth(feeds).values(), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-2)  # save_model rounds weights to fp16


def test_outputs_may_be_called_like_inputs(tmp_path: Path) -> None:
    program = tiny.affine()
    shadowed = replace(program.spec.outputs[0], name="x")
    spec = replace(program.spec, outputs=(shadowed, program.spec.outputs[1]))
    program.write(tmp_path)
    y, z = backend.open_session(spec, tmp_path, "openvino:cpu", ONE_THREAD).run(
        [tiny.random_feeds(spec)["x"]]
    )
    assert (y.shape, z.shape) == ((2, 4), ())


def test_placement(tmp_path: Path) -> None:
    placement = opened(tiny.affine(), tmp_path).placement
    assert (placement.backend, placement.device) == ("openvino", "cpu")
    assert placement.nodes["CPU"] > 3
    program = tiny.with_spec(tiny.affine(), precision="fp16")
    listed = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert bool(opened(program, tmp_path).placement.fallbacks) is ("FP16" not in listed)


def test_a_clone_shares_the_compiled_model(tmp_path: Path) -> None:
    session = opened(tiny.affine(), tmp_path)
    assert session.clone()._compiled is session._compiled


def test_compiled_blobs_are_kept_but_not_in_lean_mode(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    opened(tiny.affine(), tmp_path, options=OpenOptions(cache_path=blobs, lean=True))
    assert not blobs.exists()
    opened(tiny.affine(), tmp_path, options=OpenOptions(cache_path=blobs))
    assert list(blobs.glob("*.blob"))


def test_a_truncated_blob_does_no_harm(tmp_path: Path) -> None:
    program, blobs = tiny.affine(), tmp_path / "blobs"
    options = OpenOptions(threads=1, cache_path=blobs)
    opened(program, tmp_path, options=options)
    (blob,) = blobs.glob("*.blob")
    feeds = tiny.random_feeds(program.spec)
    for kept in (0, 10, blob.stat().st_size // 2):
        blob.write_bytes(blob.read_bytes()[:kept])
        got = opened(program, tmp_path, options=options).run([feeds["x"]])
        np.testing.assert_allclose(got[0], program.truth(feeds)["y"], rtol=1e-5, atol=1e-5)


def test_missing_devices_say_so(tmp_path: Path) -> None:
    for device in ("openvino:npu", "openvino:cpu:1"):
        with pytest.raises(DeviceError, match="OpenVINO sees"):
            opened(tiny.affine(), tmp_path, device)
    with pytest.raises(UnknownChoiceError, match="'openvino:gpu'"):
        opened(tiny.affine(), tmp_path, "openvino:tpu")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    spec = tiny.affine().spec
    (tmp_path / spec.entry).parent.mkdir()
    (tmp_path / spec.entry).write_bytes(b"not a graph")
    with pytest.raises(SessionError, match="did not load"):
        backend.open_session(spec, tmp_path, "openvino:cpu", ONE_THREAD)


def test_a_file_with_other_names_is_refused(tmp_path: Path) -> None:
    program = tiny.affine()
    renamed = tiny.with_spec(program, inputs=(replace(program.spec.inputs[0], name="image"),))
    with pytest.raises(SessionError, match=r"(?s)no input named \['image'\].*'x'"):
        opened(renamed, tmp_path)


class FakeCore:
    """A machine with two GPUs and a CPU."""

    available_devices = ("CPU", "GPU.0", "GPU.1")

    def get_property(self, name: str, key: str) -> Any:
        return {"FULL_DEVICE_NAME": f"the {name}", "SUPPORTED_PROPERTIES": {"FULL_DEVICE_NAME": "RO"}}[key]


def test_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_core", lru_cache(FakeCore))
    found = {device.id: device for device in backend.devices()}
    assert found["openvino:gpu"].name == "the GPU.0"
    assert found["openvino:gpu:1"].name == "the GPU.1"
    assert not found["openvino:npu"].usable
    assert backend._openvino_name("gpu", 1) == "GPU.1"
    assert backend._openvino_name("gpu", 0) == "GPU.0"
    with pytest.raises(DeviceError):
        backend._openvino_name("gpu", 2)
    assert backend.identity("openvino:gpu:1")["FULL_DEVICE_NAME"] == "the GPU.1"


def test_without_openvino(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"edge-sdk\[openvino\]"):
        opened(tiny.affine(), tmp_path)
    monkeypatch.setattr(backend, "is_installed", lambda _name: False)
    assert all(not device.usable and "pip install" in device.note for device in backend.devices())


def test_a_file_with_other_outputs_is_refused(tmp_path: Path) -> None:
    program = tiny.affine()
    spec = replace(program.spec, outputs=program.spec.outputs[:1])
    program.write(tmp_path)
    with pytest.raises(SessionError, match="has 2 outputs, the manifest names 1"):
        backend.open_session(spec, tmp_path, "openvino:cpu", OpenOptions())
