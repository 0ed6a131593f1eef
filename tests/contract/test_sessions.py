"""Every backend keeps the same promises: ONNX Runtime, OpenVINO, and PyTorch eager, the test double."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import sdk
from contract_truth import FP32, Arrays, Shipped, on_arrays, ship, worst
from networks import CASES
from sdk_runtimes.sessions.eager import eager_session

BACKENDS = {"onnxruntime": "onnx", "openvino": "openvino", "eager": "onnx"}
NETWORKS = ("kv_cache", "integers_and_bools", "nested_inputs")

Ship = Callable[[str], Shipped]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=NETWORKS)
def done(request: pytest.FixtureRequest, shipped: Ship) -> Shipped:
    return shipped(request.param)


@pytest.fixture
def session(backend: str, done: Shipped) -> Iterator[sdk.Session]:
    with open_on(backend, done) as session:
        yield session


def open_on(backend: str, done: Shipped) -> sdk.Session:
    if backend == "eager":
        case = done.case
        function = on_arrays(done.network, case.inputs(**case.sample))
        return eager_session(function, done.spec(BACKENDS[backend]))
    return sdk.load(done.bundle.path, f"{backend}:cpu")


def test_runs_are_right_and_in_order_at_every_size(session: sdk.Session, done: Shipped) -> None:
    for sizes, feeds, truth in done.runs():
        assert worst(truth, session.run(feeds)) <= FP32, sizes


def test_says_where_it_runs(session: sdk.Session, backend: str) -> None:
    assert session.placement.backend == backend
    assert session.device == f"{backend}:cpu"
    assert [item.name for item in session.outputs] == [item.name for item in session.spec.outputs]


def test_results_are_the_callers_own(session: sdk.Session, done: Shipped) -> None:
    feeds, truth = done.sample()
    first = session.run(feeds)
    kept = {name: array.copy() for name, array in first.items()}
    session.run({name: np.zeros_like(array) for name, array in feeds.items()})
    for name in truth:
        np.testing.assert_array_equal(first[name], kept[name])
        first[name][...] = 0  # writable, and nobody else's
    assert worst(truth, session.run(feeds)) <= FP32


def test_feeds_are_left_alone(session: sdk.Session, done: Shipped) -> None:
    feeds, _ = done.sample()
    before = {name: array.copy() for name, array in feeds.items()}
    session.run(feeds)
    for name, array in before.items():
        np.testing.assert_array_equal(feeds[name], array)


def test_strided_and_read_only_feeds_do(session: sdk.Session, done: Shipped) -> None:
    feeds, truth = done.sample()
    strided = {name: _strided(array) for name, array in feeds.items()}
    assert worst(truth, session.run(strided)) <= FP32


def _strided(array: np.ndarray) -> np.ndarray:
    if not array.ndim:
        return array
    wide = np.repeat(array, 2, axis=-1)
    view = wide[..., ::2]
    view.flags.writeable = False
    return view


def test_a_binding_reads_and_writes_the_same_buffers(session: sdk.Session, done: Shipped) -> None:
    feeds, _ = done.sample()
    wanted = session.run(feeds)
    binding = session.bind(feeds)
    buffers = {name: array.ctypes.data for name, array in binding.outputs.items()}
    for array in binding.inputs.values():
        array[...] = np.zeros_like(array)
    binding.run()
    for name, array in binding.inputs.items():
        array[...] = feeds[name]
    got = binding.run()
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])
    assert {name: array.ctypes.data for name, array in got.items()} == buffers


def test_clones_run_at_the_same_time(session: sdk.Session, done: Shipped) -> None:
    feeds, _ = done.sample()
    wanted = session.run(feeds)
    got: list[Arrays] = []

    def work(clone: sdk.Session) -> None:
        got.extend(clone.run(feeds) for _ in range(5))

    clones = [session.clone() for _ in range(2)]
    threads = [threading.Thread(target=work, args=(clone,)) for clone in clones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for clone in clones:
        clone.close()
    assert len(got) == 10
    for outputs in got:
        for name in wanted:
            np.testing.assert_array_equal(outputs[name], wanted[name])
    assert worst(wanted, session.run(feeds)) == 0.0  # closing its clones left the session alone


def test_metrics_count_the_runs(session: sdk.Session, done: Shipped) -> None:
    feeds, _ = done.sample()
    before = session.metrics().runs
    for _ in range(3):
        session.run(feeds)
    assert session.metrics().runs == before + 3


def test_what_does_not_fit_is_refused_and_does_no_harm(session: sdk.Session, done: Shipped) -> None:
    feeds, truth = done.sample()
    name, array = next(iter(feeds.items()))
    others = {key: value for key, value in feeds.items() if key != name}
    wrong_dtype = array.astype(np.float64)
    for wrong in (
        others,
        {**feeds, "unknown": array},
        {**others, f"{name}_": array},
        {**others, name: wrong_dtype},
        {**others, name: array[None]},
        {**others, name: array.tolist()},
    ):
        with pytest.raises(sdk.errors.FeedError) as caught:
            session.run(wrong)
        assert caught.value.what
        assert caught.value.why
        assert caught.value.fix
    assert worst(truth, session.run(feeds)) <= FP32


def test_the_message_says_expected_and_given(session: sdk.Session, done: Shipped) -> None:
    feeds, _ = done.sample()
    name, array = next(iter(feeds.items()))
    with pytest.raises(sdk.errors.FeedError, match=f"float64.*expected {array.dtype}"):
        session.run({**feeds, name: array.astype(np.float64)})


def test_a_closed_session_says_so(backend: str, done: Shipped) -> None:
    session = open_on(backend, done)
    feeds, _ = done.sample()
    binding = session.bind(feeds)
    session.close()
    session.close()
    for call in (lambda: session.run(feeds), lambda: session.bind(feeds), session.clone, binding.run):
        with pytest.raises(sdk.errors.SessionError, match="closed"):
            call()


def test_sizes_beyond_the_range_are_refused(backend: str, shipped: Ship) -> None:
    done = shipped("unet_dynamic")
    with open_on(backend, done) as session:
        for rows in (4, 68, 10):  # below, above, between the steps
            feeds = {"x": np.zeros((1, 3, rows, 16), np.float32), "cond": np.zeros((1, 8), np.float32)}
            with pytest.raises(sdk.errors.FeedError, match="8 to 64 in steps of 4"):
                session.run(feeds)


def test_a_loop_from_an_empty_cache_stays_right(backend: str, shipped: Ship) -> None:
    """Starts at length 1 on one session: OpenVINO's mask-less attention went wrong exactly there."""
    done = shipped("kv_cache")
    wanted = on_arrays(done.network, done.case.inputs(**done.case.sample))
    draws = np.random.default_rng(0)
    with open_on(backend, done) as session:
        keys = values = np.zeros((2, 1, 4, 0, 16), np.float32)
        for new in (1, 4, 9, 16, 25):
            feeds = {"x": draws.standard_normal((1, new, 64), np.float32), "past_k": keys, "past_v": values}
            got = session.run(feeds)
            assert worst(wanted(feeds), got) <= FP32, keys.shape
            keys = np.concatenate([keys, got["new_k"]], axis=3)
            values = np.concatenate([values, got["new_v"]], axis=3)


def test_threads_change_nothing(done: Shipped) -> None:
    feeds, truth = done.sample()
    for device in ("onnxruntime:cpu", "openvino:cpu"):
        with sdk.load(done.bundle.path, device, threads=1) as session:
            assert worst(truth, session.run(feeds)) <= FP32


def test_two_exports_give_the_same_bytes(tmp_path: Path) -> None:
    case = CASES["mlp_tied"]
    digests = {
        ship(case, tmp_path / f"{i}.bundle", ("onnx", "openvino", "coreml", "tensorrt")).bundle.digest
        for i in range(2)
    }
    assert len(digests) == 1
