import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import tiny_programs as tiny
from sdk_runtimes.backends import OpenOptions, open_raw
from sdk_runtimes.errors import FeedError, SessionError
from sdk_runtimes.feeds import Array
from sdk_runtimes.session import Placement, Session

DEVICES = ("onnxruntime:cpu", "openvino:cpu")


class Recorder:
    """A raw session that doubles its input, and remembers."""

    def __init__(self) -> None:
        self.placement = Placement("double", "cpu")
        self.closed = 0
        self.fails: Exception | None = None

    def run(self, feeds: Sequence[Array]) -> Sequence[Array]:
        if self.fails:
            raise self.fails
        return [feeds[0][:, :4] * 2, np.asarray(feeds[0].sum())]

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        def call() -> None:
            for target, result in zip(outputs, self.run(inputs), strict=True):
                target[...] = result

        return call

    def clone(self) -> "Recorder":
        return Recorder()

    def close(self) -> None:
        self.closed += 1


def doubling(rows: int | str = 2) -> tuple[Session, Recorder]:
    raw = Recorder()
    return Session(tiny.affine(rows).spec, raw, load_ms=7.0), raw


def opened(program: tiny.Tiny, folder: Path, device: str) -> Session:
    return Session(program.spec, open_raw(program.write(folder), folder, device, OpenOptions(threads=1)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [2, "rows"])
def test_run_gives_the_outputs_by_name_in_order(tmp_path: Path, device: str, rows: int | str) -> None:
    program = tiny.affine(rows)
    with opened(program, tmp_path, device) as session:
        feeds = tiny.random_feeds(program.spec, rows=5)
        got = session.run(feeds)
        assert list(got) == ["y", "z"]
        for name, wanted in program.truth(feeds).items():
            np.testing.assert_allclose(got[name], wanted, rtol=1e-5, atol=1e-5)
            assert got[name].shape == wanted.shape


@pytest.mark.parametrize("device", DEVICES)
def test_results_are_the_callers_own(tmp_path: Path, device: str) -> None:
    program = tiny.affine()
    with opened(program, tmp_path, device) as session:
        feeds = tiny.random_feeds(program.spec)
        first = session.run(feeds)
        kept = first["y"].copy()
        second = session.run({"x": feeds["x"] + 1})
        assert not np.shares_memory(first["y"], second["y"])
        np.testing.assert_array_equal(first["y"], kept)
        first["y"][...] = 0.0  # writable, and of no consequence
        assert np.array_equal(session.run(feeds)["y"], kept)


@pytest.mark.parametrize("device", DEVICES)
def test_empty_scalar_and_boolean_tensors(tmp_path: Path, device: str) -> None:
    program = tiny.growing_cache()
    with opened(program, tmp_path, device) as session:
        for past in (0, 3):
            feeds = {
                "past": np.ones((1, past, 4), np.float32),
                "new": np.full((1, 2, 4), 2, np.float32),
                "flag": np.array(past > 0),
            }
            binding = session.bind(feeds)
            for got in (session.run(feeds), binding.run()):
                for name, wanted in program.truth(feeds).items():
                    assert got[name].dtype == wanted.dtype
                    np.testing.assert_array_equal(got[name], wanted)
                    assert got[name].shape == wanted.shape


@pytest.mark.parametrize("device", DEVICES)
def test_strided_and_read_only_feeds(tmp_path: Path, device: str) -> None:
    program = tiny.affine()
    with opened(program, tmp_path, device) as session:
        plain = tiny.random_feeds(program.spec)["x"]
        wanted = program.truth({"x": plain})["y"]
        read_only = plain.copy()
        read_only.flags.writeable = False
        for x in (np.asfortranarray(plain), read_only, np.repeat(plain, 2, axis=1)[:, ::2]):
            np.testing.assert_allclose(session.run({"x": x})["y"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_bind_computes_in_its_own_buffers(tmp_path: Path, device: str) -> None:
    program = tiny.affine("rows")
    with opened(program, tmp_path, device) as session:
        feeds = tiny.random_feeds(program.spec, rows=3)
        original = feeds["x"].copy()
        binding = session.bind(feeds)
        buffer = binding.outputs["y"]
        for shift in (0.0, 1.0, 2.0):
            binding.inputs["x"][...] = original + shift
            session.run({"x": original * 9})  # in between: must not disturb the buffers
            got = binding.run()
            assert got["y"] is buffer
            wanted = program.truth({"x": original + np.float32(shift)})
            np.testing.assert_allclose(buffer, wanted["y"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(feeds["x"], original)


@pytest.mark.parametrize("device", DEVICES)
def test_bind_by_size(tmp_path: Path, device: str) -> None:
    program = tiny.affine("rows")
    with opened(program, tmp_path, device) as session:
        binding = session.bind(rows=6)
        assert binding.inputs["x"].shape == (6, 8)
        np.testing.assert_allclose(binding.run()["y"], np.ones((6, 4)))


def test_bind_needs_every_size() -> None:
    session, _ = doubling("rows")
    with pytest.raises(FeedError, match=r"no size for \['rows'\]"):
        session.bind()


@pytest.mark.parametrize("device", DEVICES)
def test_clones_run_at_the_same_time(tmp_path: Path, device: str) -> None:
    program = tiny.affine("rows")
    wrong: list[str] = []

    def work(session: Session, seed: int) -> None:
        with session:
            for turn in range(200):
                feeds = tiny.random_feeds(program.spec, seed=seed, rows=1 + (seed + turn) % 7)
                got = session.run(feeds)
                if not np.allclose(got["y"], program.truth(feeds)["y"], atol=1e-4):
                    wrong.append(f"thread {seed}, turn {turn}")

    with opened(program, tmp_path, device) as session:
        threads = [threading.Thread(target=work, args=(session.clone(), seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert session.metrics().runs == 0  # a clone counts for itself


@pytest.mark.parametrize("device", DEVICES)
def test_a_clone_outlives_its_original(tmp_path: Path, device: str) -> None:
    program = tiny.affine()
    original = opened(program, tmp_path, device)
    clone = original.clone()
    original.close()
    feeds = tiny.random_feeds(program.spec)
    np.testing.assert_allclose(clone.run(feeds)["y"], program.truth(feeds)["y"], rtol=1e-5, atol=1e-5)


def test_a_closed_session_says_so() -> None:
    session, raw = doubling()
    feeds = tiny.random_feeds(session.spec)
    binding = session.bind(feeds)
    session.close()
    session.close()
    assert raw.closed == 1
    for call in (
        lambda: session.run(feeds),
        session.bind,
        session.clone,
        binding.run,
        lambda: session.placement,
    ):
        with pytest.raises(SessionError, match="is closed"):
            call()
    assert "closed" in repr(session)


def test_engine_failures_are_ours() -> None:
    session, raw = doubling()
    feeds = tiny.random_feeds(session.spec)
    binding = session.bind(feeds)
    raw.fails = RuntimeError("out of tensor cores")
    for call in (lambda: session.run(feeds), binding.run, session.bind):
        with pytest.raises(
            SessionError, match=r"'affine.onnx' failed on double:cpu: out of tensor cores"
        ) as caught:
            call()
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_our_own_errors_pass_unchanged() -> None:
    session, raw = doubling()
    raw.fails = FeedError("a value that int32 does not hold")
    with pytest.raises(FeedError, match="int32"):
        session.run(tiny.random_feeds(session.spec))


def test_metrics_count_runs() -> None:
    session, _ = doubling()
    assert session.metrics().runs == 0
    feeds = tiny.random_feeds(session.spec)
    binding = session.bind(feeds)
    session.run(feeds)
    binding.run()
    seen = session.metrics()
    assert (seen.runs, seen.load_ms) == (2, 7.0)
    assert 0 < seen.median_ms <= seen.p90_ms * 2
    assert seen.first_ms > 0


def test_a_session_tells_what_it_is() -> None:
    session, _ = doubling("rows")
    assert session.device == "double:cpu"
    assert [item.name for item in session.inputs] == ["x"]
    assert [item.name for item in session.outputs] == ["y", "z"]
    session.add_fallbacks(["not on a GPU: there is none"])
    assert session.placement.fallbacks == ("not on a GPU: there is none",)
    assert repr(session) == "<Session affine.onnx fp32 on double:cpu>"
