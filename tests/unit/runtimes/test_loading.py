import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import openvino
import pytest

import tiny_programs as tiny
from sdk_runtimes import backends, choosing, compiled_cache, loading
from sdk_runtimes.backends import BACKENDS, Backend
from sdk_runtimes.bundle import Bundle, open_bundle
from sdk_runtimes.errors import (
    ArgumentError,
    DeviceError,
    IntegrityError,
    MemoryLimitError,
    MissingExtraError,
    SessionError,
    UnknownChoiceError,
)
from sdk_runtimes.loading import load
from sdk_runtimes.opening import Device, OpenOptions
from sdk_runtimes.session import RawSession
from sdk_runtimes.specs import ProgramSpec
from sdk_runtimes.speeds import measured_speeds, record_speed


def to_openvino(onnx_file: Path, out: Path) -> None:
    openvino.save_model(openvino.convert_model(onnx_file), out, compress_to_fp16=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    programs = [tiny.affine("rows", target=target) for target in ("onnx", "openvino")]
    tiny.write_bundle(folder / "both.bundle", programs, copies={"openvino": to_openvino})
    tiny.write_bundle(folder / "single.bundle", programs[:1])
    return folder


@pytest.fixture
def both(written: Path, tmp_path: Path) -> Bundle:
    """One network for ONNX Runtime and OpenVINO."""
    return open_bundle(shutil.copytree(written / "both.bundle", tmp_path / "both.bundle"))


@pytest.fixture
def single(written: Path, tmp_path: Path) -> Bundle:
    """The same for ONNX Runtime only."""
    return open_bundle(shutil.copytree(written / "single.bundle", tmp_path / "single.bundle"))


@pytest.fixture(autouse=True)
def log_anew() -> None:
    loading._log_once.cache_clear()


@pytest.mark.parametrize(
    ("device", "target", "lands"),
    [
        ("auto", None, "affine.openvino openvino:cpu"),
        ("cpu", None, "affine.openvino openvino:cpu"),
        ("auto", "onnx", "affine.onnx onnxruntime:cpu"),
        ("onnxruntime:cpu", None, "affine.onnx onnxruntime:cpu"),
        ("openvino:cpu", None, "affine.openvino openvino:cpu"),
        ("openvino:cpu", "onnx", "affine.onnx openvino:cpu"),
        ("openvino:auto", None, "affine.openvino openvino:auto"),
    ],
)
def test_what_runs_where(both: Bundle, device: str, target: str | None, lands: str) -> None:
    with load(both.path, device, target=target, threads=1) as session:
        assert f"{session.spec.id} {session.device}" == lands
        program = tiny.affine("rows")
        feeds = tiny.random_feeds(program.spec, seed=9, rows=5)
        np.testing.assert_allclose(session.run(feeds)["y"], program.truth(feeds)["y"], rtol=1e-4, atol=1e-4)
        assert session.metrics().load_ms > 0


def test_an_open_bundle_loads_as_well(single: Bundle) -> None:
    assert load(single).device == "onnxruntime:cpu"


def test_measured_speed_decides_auto(both: Bundle) -> None:
    record_speed(both, "openvino:cpu", "openvino", 3.0)
    record_speed(both, "onnxruntime:cpu", "onnx", 2.0)
    assert load(both).device == "onnxruntime:cpu"
    assert load(both, "cpu").device == "onnxruntime:cpu"
    record_speed(both, "openvino:cpu", "onnx", 1.0)
    session = load(both)
    assert (session.device, session.spec.target) == ("openvino:cpu", "onnx")
    assert load(both, "openvino:cpu").spec.target == "openvino"  # asked for a device: its own form first
    assert measured_speeds(both)["affine.onnx", "onnxruntime:cpu"] == 2.0


def test_the_first_of_several_devices_is_the_bare_unit(single: Bundle) -> None:
    record_speed(single, "openvino:cpu:0", "onnx", 1.0)
    assert load(single).device == "openvino:cpu"


def test_speeds_are_of_this_bundle(both: Bundle, single: Bundle) -> None:
    record_speed(single, "openvino:cpu", "onnx", 1.0)
    assert load(single).device == "openvino:cpu"
    assert load(both).spec.target == "openvino"
    compiled_cache.clear()
    assert load(single).device == "onnxruntime:cpu"


@pytest.mark.parametrize("content", ['{"latency_ms": [1]}', '{"latency_ms": {"a": "b"}}', "[]"])
def test_a_broken_speed_file_is_no_speed(single: Bundle, cache_dir: Path, content: str) -> None:
    record_speed(single, "openvino:cpu", "onnx", 1.0)
    for path in (cache_dir / "speeds").iterdir():
        path.write_text(content)
    assert load(single).device == "onnxruntime:cpu"


def test_without_openvino_the_onnx_program_runs_and_says_why(
    both: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            session = load(both)
    assert session.device == "onnxruntime:cpu"
    (reason,) = (text for text in session.placement.fallbacks if "openvino:cpu" in text)
    assert "'openvino' is not installed" in reason
    told = [record.message for record in caplog.records if "openvino:cpu" in record.message]
    assert len(told) == 1  # once, though it happened twice
    with pytest.raises(MissingExtraError, match=r"edge-sdk\[openvino\]"):
        load(both, "openvino:cpu")


def with_backend(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    table = MappingProxyType({**BACKENDS, backend.name: backend})
    for module in (backends, choosing, loading):
        if hasattr(module, "BACKENDS"):
            monkeypatch.setattr(module, "BACKENDS", table)
    monkeypatch.setattr("sdk_runtimes.identity.BACKENDS", table)
    monkeypatch.setattr(choosing, "ORDER", ((f"{backend.name}:gpu", "onnx"), *choosing.ORDER))


def failing(error: Exception) -> Backend:
    def fail(spec: ProgramSpec, folder: Path, device: str, options: OpenOptions) -> RawSession:
        raise error

    device = Device("acme:gpu", "acme", "gpu", "ACME", usable=True)
    return Backend("acme", ("onnx",), {"gpu": "gpu"}, lambda: (device,), fail, lambda _: {})


def test_a_device_that_fails_is_passed_over_with_its_reason(
    single: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_backend(monkeypatch, failing(SessionError("out of shaders", why="it has none")))
    with caplog.at_level(logging.WARNING):
        session = load(single)
    assert session.device == "onnxruntime:cpu"
    assert "not affine.onnx on acme:gpu: out of shaders (it has none)" in session.placement.fallbacks
    assert "out of shaders" in caplog.text
    with pytest.raises(SessionError, match="out of shaders"):
        load(single, "gpu", target="onnx")


def test_hardware_that_is_not_there_is_no_fallback(single: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert load(single).placement.fallbacks == ()
    (told,) = (record for record in caplog.records if "onnxruntime:cuda" in record.message)
    assert told.levelno == logging.INFO


def test_nothing_usable_tells_all_that_was_tried(single: Bundle) -> None:
    with pytest.raises(
        DeviceError, match=r"(?s)nothing that 'tiny' holds.*onnxruntime:cuda.*onnxruntime:directml"
    ):
        load(single, "gpu")


@pytest.mark.parametrize(
    "device", ["tpu", "openvino", "openvino:tpu", "onnxruntime:cuda:x", "a:b:c:d", "", ":", "cpu:"]
)
def test_an_unknown_device_lists_the_known(single: Bundle, device: str) -> None:
    with pytest.raises(UnknownChoiceError, match="'onnxruntime:cuda'") as caught:
        load(single, device)
    assert "sdk.devices()" in caught.value.fix


def test_a_device_that_opens_no_program_of_the_bundle(single: Bundle) -> None:
    with pytest.raises(DeviceError, match=r"(?s)no program of 'tiny' runs on 'coreml:cpu'.*it holds onnx"):
        load(single, "coreml:cpu")


def test_unknown_target_and_name(single: Bundle) -> None:
    with pytest.raises(UnknownChoiceError, match="unknown target 'tflite'"):
        load(single, target="tflite")
    with pytest.raises(UnknownChoiceError, match="unknown program 'decoder'"):
        load(single, name="decoder")


def test_several_networks_need_a_name(tmp_path: Path) -> None:
    programs = [tiny.affine("rows", name=name) for name in ("encoder", "decoder")]
    bundle = tiny.write_bundle(tmp_path / "two.bundle", programs)
    with pytest.raises(ArgumentError, match=r"load\(\.\.\., name='encoder'\)"):
        load(bundle)
    assert load(bundle, name="decoder").spec.name == "decoder"


def test_altered_bytes_never_reach_an_engine(single: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    path = single.path / single.manifest.programs[0].entry
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(loading, "open_raw", lambda *_: pytest.fail("an engine saw altered bytes"))
    with pytest.raises(IntegrityError):
        load(single.path)


def test_a_program_above_the_limit_is_refused_before_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tiny.affine("rows")
    large = tiny.with_spec(program, weights_bytes=10**9)
    bundle = tiny.write_bundle(tmp_path / "large.bundle", [large])
    monkeypatch.setattr(loading, "open_raw", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(
        MemoryLimitError, match=r"(?s)= weights .* \+ activations .* \+ engine .*memory_limit="
    ) as caught:
        load(bundle, memory_limit="500MB")
    assert isinstance(caught.value, MemoryError)
    with pytest.raises(ArgumentError, match="is not a size"):
        load(bundle, memory_limit="half of it")


def test_the_limit_that_an_error_names_is_enough(tmp_path: Path) -> None:
    large = tiny.with_spec(tiny.affine("rows"), weights_bytes=10**9)
    bundle = tiny.write_bundle(tmp_path / "large.bundle", [large])
    with pytest.raises(MemoryLimitError) as caught:
        load(bundle, "onnxruntime:cpu", memory_limit="500MB")
    named = caught.value.fix.partition('"')[2].partition('"')[0]
    assert load(bundle, "onnxruntime:cpu", memory_limit=named).device == "onnxruntime:cpu"


def test_between_lean_and_ample_the_engine_is_told_to_be_lean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tiny.with_spec(tiny.affine("rows"), weights_bytes=10**9)
    bundle = tiny.write_bundle(tmp_path / "large.bundle", [large])
    seen: list[OpenOptions] = []
    real = loading.open_raw

    def spy(spec: ProgramSpec, folder: Path, device: str, options: OpenOptions) -> RawSession:
        seen.append(options)
        return real(spec, folder, device, options)

    monkeypatch.setattr(loading, "open_raw", spy)
    for limit in ("2GB", "20GB"):
        load(bundle, "onnxruntime:cpu", memory_limit=limit)
    assert [options.lean for options in seen] == [True, False]


def test_a_smaller_engine_is_taken_where_the_preferred_one_does_not_fit(tmp_path: Path) -> None:
    programs = [
        tiny.with_spec(tiny.affine("rows", target=target), weights_bytes=10**9)
        for target in ("onnx", "openvino")
    ]
    bundle = tiny.write_bundle(tmp_path / "large.bundle", programs, copies={"openvino": to_openvino})
    session = load(bundle, memory_limit="2GB")
    assert session.device == "onnxruntime:cpu"
    assert any("the limit is 2 GB" in reason for reason in session.placement.fallbacks)


def test_threads_reach_the_engine_and_nonsense_is_refused(single: Bundle) -> None:
    with pytest.raises(ArgumentError, match="threads is 0"):
        load(single, threads=0)
    session = load(single, "openvino:cpu", threads=1)
    assert session._raw is not None
    assert session._raw._compiled.get_property("INFERENCE_NUM_THREADS") == 1  # type: ignore[attr-defined]  # OpenVINO's


def test_openvino_compiles_once(single: Bundle, cache_dir: Path) -> None:
    load(single, "openvino:cpu")
    blobs = list((cache_dir / "compiled").rglob("*.blob"))
    assert len(blobs) == 1
    written = blobs[0].stat().st_mtime_ns
    load(single, "openvino:cpu")
    assert [path.stat().st_mtime_ns for path in (cache_dir / "compiled").rglob("*.blob")] == [written]
    load(single, "openvino:cpu", threads=1)  # another compilation
    assert len(list((cache_dir / "compiled").rglob("*.blob"))) == 2


def test_a_damaged_blob_is_thrown_away(
    single: Bundle, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load(single, "openvino:cpu")
    real = loading.open_raw

    def chokes_on_its_cache(spec: ProgramSpec, folder: Path, device: str, options: OpenOptions) -> RawSession:
        if options.cache_path:
            raise SessionError("bad blob")
        return real(spec, folder, device, options)

    monkeypatch.setattr(loading, "open_raw", chokes_on_its_cache)
    with caplog.at_level(logging.WARNING):
        assert load(single, "openvino:cpu").device == "openvino:cpu"
    assert "opened without the cache: bad blob" in caplog.text
    assert not list((cache_dir / "compiled").rglob("*.blob"))


def test_the_cache_may_vanish_between_loads(single: Bundle, cache_dir: Path) -> None:
    for _ in range(2):
        load(single, "openvino:cpu")
        shutil.rmtree(cache_dir)


def test_device_ids_that_sessions_tell_load_again(single: Bundle) -> None:
    session = load(single)
    assert load(single, session.device).device == session.device


def test_programs_of_one_network_in_two_precisions_are_not_confused(single: Bundle) -> None:
    spec = single.manifest.programs[0]
    other = replace(spec, precision="fp16")
    assert spec.id == other.id  # so a bundle holds one of them: `bundle.program` refuses two
