from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest

import tiny_programs as tiny
from sdk_runtimes import loading, replay
from sdk_runtimes.bundle import Bundle
from sdk_runtimes.compiled_cache import entries
from sdk_runtimes.errors import IntegrityError, QualityError, UnknownChoiceError
from sdk_runtimes.feeds import Array
from sdk_runtimes.loading import load
from sdk_runtimes.manifest import Tolerance
from sdk_runtimes.session import RawSession
from sdk_runtimes.verifying import verify


def to_openvino(onnx_file: Path, out: Path) -> None:
    openvino.save_model(openvino.convert_model(onnx_file), out, compress_to_fp16=False)


@pytest.fixture
def good(tmp_path: Path) -> Bundle:
    return tiny.write_bundle(tmp_path / "good.bundle", [tiny.affine("rows")])


@pytest.fixture
def bad(tmp_path: Path) -> Bundle:
    """Its goldens tell of a model whose results are 1 % larger."""
    return tiny.write_bundle(tmp_path / "bad.bundle", [tiny.affine("rows")], scale_truth=1.01)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The device of every replay that really ran."""
    seen: list[str] = []
    real = replay.replay

    def spy(bundle: Bundle, session: loading.Session, **options: object) -> replay.Replay:
        seen.append(session.device)
        return real(bundle, session, **options)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(replay, "replay", spy)
    return seen


def verdicts() -> list[str]:
    return [str(entry.about["device"]) for entry in entries() if entry.kind == "verdicts"]


def test_goldens_are_replayed_once_per_device(good: Bundle, replays: list[str]) -> None:
    for device in ("onnxruntime:cpu", "onnxruntime:cpu", "openvino:cpu", "onnxruntime:cpu", "openvino:cpu"):
        load(good, device)
    assert replays == ["onnxruntime:cpu", "openvino:cpu"]
    assert sorted(verdicts()) == ["onnxruntime:cpu", "openvino:cpu"]


@pytest.mark.parametrize("changed", ["sdk", "onnxruntime", "cpu", "bundle"])
def test_another_version_processor_or_bundle_is_replayed(
    good: Bundle, replays: list[str], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    load(good)
    real = replay.identity_of
    monkeypatch.setattr(replay, "identity_of", lambda *given: {**real(*given), changed: "another"})
    load(good)
    assert len(replays) == 2


def test_wrong_results_are_refused_each_time(bad: Bundle, replays: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(QualityError, match=r"'affine.onnx' computes something else on onnxruntime:cpu"):
            load(bad)
    assert len(replays) == 2
    assert verdicts() == []
    assert load(bad, replay=False).run(tiny.random_feeds(bad.manifest.programs[0], rows=1))


def test_the_message_names_output_and_figures(bad: Bundle) -> None:
    with pytest.raises(
        QualityError, match=r"output '[yz]' of golden-\d is off by 0.0099\d* .*allowed are 1e-05"
    ):
        load(bad)


def test_a_failed_replay_closes_the_session(bad: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(loading.Session, "close", lambda self: closed.append(self.spec.id))
    with pytest.raises(QualityError):
        load(bad)
    assert closed == ["affine.onnx"]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nan_and_inf_never_pass(good: Bundle, monkeypatch: pytest.MonkeyPatch, poison: float) -> None:
    real = loading.open_raw

    def poisoned(*given: object) -> RawSession:
        raw = real(*given)  # type: ignore[arg-type]  # passed through
        run = raw.run

        def spoil(feeds: Sequence[Array]) -> Sequence[Array]:
            results = [np.array(result) for result in run(feeds)]
            results[0][0, 0] = poison
            return results

        raw.run = spoil  # type: ignore[method-assign]  # a planted fault
        return raw

    monkeypatch.setattr(loading, "open_raw", poisoned)
    with pytest.raises(QualityError, match="is off by inf"):
        load(good)


def test_a_bundle_without_goldens_loads(tmp_path: Path) -> None:
    bundle = tiny.write_bundle(tmp_path / "none.bundle", [tiny.affine("rows")], goldens=0)
    assert load(bundle).device == "onnxruntime:cpu"
    (verdict,) = verify(bundle.path).programs
    assert (verdict.verdict, verdict.reason) == ("unverified", "the bundle has no goldens of it")


def test_the_tolerance_is_the_gates(tmp_path: Path) -> None:
    bundle = tiny.write_bundle(
        tmp_path / "loose.bundle", [tiny.affine("rows")], scale_truth=1.01, rel_rmse=0.1
    )
    assert load(bundle).device == "onnxruntime:cpu"
    assert verify(bundle.path).programs[0].tolerance == Tolerance(0.1)


def test_verify_replays_whatever_was_cached(good: Bundle) -> None:
    load(good)
    for _ in range(2):
        report = verify(good.path)
        (verdict,) = report.programs
        assert report.passed
        assert (verdict.verdict, verdict.device, verdict.cases) == ("passed", "onnxruntime:cpu", 2)
        assert {output.output for output in verdict.outputs} == {"y", "z"}
        assert all(output.rel_rmse < 1e-5 for output in verdict.outputs)
    assert report.files == len(good.manifest.files)


def test_verify_tells_what_failed(bad: Bundle) -> None:
    report = verify(bad.path)
    assert not report.passed
    assert report.programs[0].verdict == "failed"
    assert "is off by 0.0099" in report.programs[0].reason


def test_verify_tells_what_could_not_run_here(tmp_path: Path) -> None:
    programs = [tiny.affine("rows", target=target) for target in ("onnx", "openvino")]
    bundle = tiny.write_bundle(tmp_path / "both.bundle", programs, copies={"openvino": to_openvino})
    report = verify(bundle.path, "onnxruntime:cpu")
    assert [program.verdict for program in report.programs] == ["passed", "unverified"]
    assert "openvino" in report.programs[1].reason
    assert report.passed
    assert verify(bundle.path).programs[1].device == "openvino:cpu"


def test_verify_with_a_limit_too_small(tmp_path: Path) -> None:
    large = tiny.with_spec(tiny.affine("rows"), weights_bytes=10**12)
    bundle = tiny.write_bundle(tmp_path / "large.bundle", [large])
    report = verify(bundle.path, memory_limit="1GB")
    assert not report.passed
    assert report.programs[0].verdict == "unverified"
    assert "the limit is 1 GB" in report.programs[0].reason


def test_verify_refuses_unknown_devices_and_altered_bundles(good: Bundle) -> None:
    with pytest.raises(UnknownChoiceError, match="unknown device 'tpu'"):
        verify(good.path, "tpu")
    (good.path / good.manifest.goldens[0].file).write_bytes(b"")
    with pytest.raises(IntegrityError):
        verify(good.path)


def test_verify_reports_progress(good: Bundle) -> None:
    told: list[tuple[str, int, int]] = []
    tell: Callable[[str, int, int], None] = lambda *stage: told.append(stage)  # noqa: E731 - typed for the call
    verify(good.path, progress=tell)
    assert told == [("affine.onnx", 0, 1), ("done", 1, 1)]


def test_a_program_that_no_engine_takes_has_failed(good: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> RawSession:
        raise loading.SessionError("bad graph")

    monkeypatch.setattr(loading, "open_raw", refuse)
    assert verify(good.path).programs[0].verdict == "failed"


def test_a_replay_tells_its_worst_case(good: Bundle) -> None:
    session = load(good, replay=False)
    seen = replay.replay(good, session)
    assert seen.cases == 2
    assert seen.failures == ()
    strict = replace(seen, tolerance=Tolerance(rel_rmse=-1.0))
    assert {output.output for output in strict.failures} == {"y", "z"}
