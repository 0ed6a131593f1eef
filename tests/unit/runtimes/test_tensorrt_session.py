"""TensorrtSession against a fake library that computes for real: the code path, not the GPU."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as Type
from onnx import helper, numpy_helper

from fakes.cuda import FakeCuda
from fakes.tensorrt import FakeTensorrt, write_external
from sdk_runtimes.cuda import Memory
from sdk_runtimes.errors import DeviceError, FeedError, MemoryLimitError, SessionError, UnknownChoiceError
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.session import Session
from sdk_runtimes.sessions import tensorrt
from sdk_runtimes.specs import ProgramSpec, SymbolRange, TensorSpec

WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)

SPEC = ProgramSpec(
    name="net",
    target="tensorrt",
    precision="fp32",
    inputs=(
        TensorSpec("x", "float32", ("batch", 3)),
        TensorSpec("past", "float32", ("batch", "past", 4)),
        TensorSpec("scale", "float32", ()),
        TensorSpec("keep", "bool", ("batch", 1)),
    ),
    outputs=(
        TensorSpec("total", "float32", ("batch", 4)),
        TensorSpec("grown", "float32", ("batch", "1 + past", 4)),
    ),
    files=("net.trt.onnx", "net.trt.onnx.data"),
    symbols=(SymbolRange("batch", 1, 8), SymbolRange("past", 0, 16)),
    weights_bytes=WEIGHT.nbytes,
    options={
        "profile": json.dumps(
            {
                "x": {"min": [1, 3], "opt": [2, 3], "max": [8, 3]},
                "past": {"min": [1, 0, 4], "opt": [2, 5, 4], "max": [8, 16, 4]},
                "keep": {"min": [1, 1], "opt": [2, 1], "max": [8, 1]},
            }
        )
    },
)


def _graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Mul", ["h", "scale"], ["scaled"]),
        helper.make_node("Where", ["keep", "scaled", "zero"], ["total"]),
        helper.make_node("Unsqueeze", ["total", "axis"], ["row"]),
        helper.make_node("Concat", ["past", "row"], ["grown"], axis=1),
    ]
    types = {"float32": Type.FLOAT, "bool": Type.BOOL}
    inputs, outputs = (
        [helper.make_tensor_value_info(s.name, types[s.dtype], list(s.shape)) for s in specs]
        for specs in (SPEC.inputs, SPEC.outputs)
    )
    weights = {"w": WEIGHT, "zero": np.float32(0), "axis": np.array([1])}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _feeds(batch: int, past: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((batch, 3), np.float32),
        "past": rng.standard_normal((batch, past, 4), np.float32),
        "scale": np.float32(rng.random()).reshape(()),
        "keep": rng.random((batch, 1)) > 0.3,
    }


def _truth(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    total = np.where(feeds["keep"], feeds["x"] @ WEIGHT * feeds["scale"], 0)
    return {"total": total, "grown": np.concatenate((feeds["past"], total[:, None]), axis=1)}


def _agree(found: dict[str, np.ndarray], feeds: dict[str, np.ndarray]) -> None:
    for name, wanted in _truth(feeds).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)


Machine = tuple[FakeCuda, FakeTensorrt]
Install = Callable[..., Machine]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a fake machine and library where the real ones would be imported from."""

    def put(cuda: FakeCuda | None = None, **library: Any) -> Machine:
        machine = cuda or FakeCuda()
        fake = FakeTensorrt(machine, **library)
        for name, module in (
            ("cuda", ModuleType("cuda")),
            ("cuda.bindings", ModuleType("cuda.bindings")),
            ("cuda.bindings.runtime", machine.module()),
            ("tensorrt", fake.module()),
        ):
            monkeypatch.setitem(sys.modules, name, module)
        return machine, fake

    return put


@pytest.fixture(params=[10, 11])
def machine(request: pytest.FixtureRequest, install: Install) -> Iterator[Machine]:
    made = install(major=request.param)
    yield made
    assert made[0].leaks() == {"blocks": 0, "pinned": 0, "streams": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_external(_graph(), tmp_path / "net.trt.onnx")
    return tmp_path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    return path


def _open(folder: Path, device: str = "tensorrt:gpu", spec: ProgramSpec = SPEC, **options: Any) -> Session:
    return Session(spec, tensorrt.open_session(spec, folder, device, OpenOptions(**options)))


def test_runs_compute_what_the_graph_says_at_every_size(machine: Machine, folder: Path) -> None:
    with _open(folder) as session:
        # Growing, shrinking, empty, and growing again: buffers are reused and replaced.
        for i, (batch, past) in enumerate(((2, 5), (1, 0), (8, 16), (1, 1), (8, 2))):
            feeds = _feeds(batch, past, seed=i)
            _agree(session.run(feeds), feeds)
        assert session.device == "tensorrt:gpu:0"


def test_results_are_the_callers_own(machine: Machine, folder: Path) -> None:
    with _open(folder) as session:
        first_feeds = _feeds(2, 3, seed=1)
        first = session.run(first_feeds)
        session.run(_feeds(2, 3, seed=2))
        _agree(first, first_feeds)


def test_inputs_that_are_not_contiguous_are_taken(machine: Machine, folder: Path) -> None:
    feeds = _feeds(4, 3)
    feeds["x"] = np.asfortranarray(feeds["x"])
    feeds["past"] = np.concatenate((feeds["past"], feeds["past"]), axis=1)[:, ::2]
    with _open(folder) as session:
        _agree(session.run(feeds), feeds)


def test_warm_runs_allocate_nothing_on_the_gpu(machine: Machine, folder: Path) -> None:
    cuda, _ = machine
    with _open(folder) as session:
        session.run(_feeds(4, 8))
        before = cuda.allocations
        session.run(_feeds(4, 8, seed=1))
        session.run(_feeds(2, 3, seed=2))
        assert cuda.allocations == before


def test_a_buffer_that_grows_gives_the_old_one_back(machine: Machine, folder: Path) -> None:
    with _open(folder) as session:
        for past in (1, 4, 16):
            session.run(_feeds(2, past))
        assert len(machine[0].blocks) == len(SPEC.inputs) + len(SPEC.outputs)


def test_an_empty_tensor_has_an_address_from_the_start(machine: Machine, folder: Path) -> None:
    feeds = _feeds(2, 0)
    with _open(folder) as session:
        _agree(session.run(feeds), feeds)
        _agree(session.bind(feeds).run(), feeds)


def test_bound_buffers_are_read_and_written_in_place(machine: Machine, folder: Path) -> None:
    cuda, _ = machine
    with _open(folder) as session:
        feeds = _feeds(2, 3)
        binding = session.bind(feeds)
        before = cuda.allocations
        for seed in (1, 2):
            later = _feeds(2, 3, seed=seed)
            for name, value in later.items():
                binding.inputs[name][...] = value
            _agree(binding.run(), later)
        assert cuda.allocations == before


def test_a_run_between_bound_runs_disturbs_neither(machine: Machine, folder: Path) -> None:
    with _open(folder) as session:
        feeds, other = _feeds(2, 3), _feeds(8, 16, seed=5)
        first, second = session.bind(feeds), session.bind(other)
        _agree(session.run(other), other)
        _agree(first.run(), feeds)
        _agree(second.run(), other)
        _agree(session.run(feeds), feeds)


def test_a_binding_of_a_closed_session_refuses(machine: Machine, folder: Path) -> None:
    raw = tensorrt.open_session(SPEC, folder, "tensorrt:gpu", OpenOptions())
    feeds = list(_feeds(2, 3).values())
    call = raw.bind(feeds, list(raw.run(feeds)))
    raw.close()
    raw.close()
    with pytest.raises(SessionError, match="closed"):
        call()
    with pytest.raises(SessionError, match="closed"):
        raw.run(feeds)


def test_clones_share_the_engine_and_run_in_other_threads(machine: Machine, folder: Path) -> None:
    _, library = machine
    with _open(folder) as session, session.clone() as clone:
        feeds, other = _feeds(2, 3), _feeds(4, 1, seed=3)
        found: list[dict[str, np.ndarray]] = []
        thread = threading.Thread(target=lambda: found.append(clone.run(other)))
        thread.start()
        thread.join()
        _agree(found[0], other)
        _agree(session.run(feeds), feeds)
    assert len(library.builds) == 1


def test_the_clone_outlives_the_original(machine: Machine, folder: Path) -> None:
    session = _open(folder)
    clone = session.clone()
    session.close()
    feeds = _feeds(2, 3)
    with clone:
        _agree(clone.run(feeds), feeds)


def test_a_session_that_nobody_closes_frees_its_memory(machine: Machine, folder: Path) -> None:
    session = _open(folder)
    session.run(_feeds(2, 3))
    del session  # the fixture counts what is left


def test_fp32_is_fp32(machine: Machine, folder: Path) -> None:
    _open(folder).close()
    assert [build["tf32"] for build in machine[1].builds] == [False]


def test_the_second_load_builds_nothing(machine: Machine, folder: Path, cache: Path) -> None:
    feeds = _feeds(2, 3)
    for _ in range(2):
        with _open(folder, cache_path=cache) as session:
            _agree(session.run(feeds), feeds)
    assert len(machine[1].builds) == 1
    assert sorted(path.name for path in cache.iterdir()) == ["engine.plan", "timing.cache"]


@pytest.mark.parametrize("spoil", [b"", b"junk", None])
def test_a_plan_that_does_not_load_is_built_anew(
    machine: Machine, folder: Path, cache: Path, spoil: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    _open(folder, cache_path=cache).close()
    plan = cache / "engine.plan"
    plan.write_bytes(plan.read_bytes()[:-40] if spoil is None else spoil)
    feeds = _feeds(2, 3)
    with caplog.at_level(logging.INFO), _open(folder, cache_path=cache) as session:
        _agree(session.run(feeds), feeds)
    assert "building anew" in caplog.text
    assert "magic" in caplog.text
    _open(folder, cache_path=cache).close()
    assert len(machine[1].builds) == 2, "the mended plan serves the third load"


def test_a_plan_of_another_version_is_built_anew(install: Install, folder: Path, cache: Path) -> None:
    cuda, old = install(major=10)
    _open(folder, cache_path=cache).close()
    _, new = install(cuda, major=11)
    _open(folder, cache_path=cache).close()
    assert (len(old.builds), len(new.builds)) == (1, 1)


def test_timings_of_the_last_build_speed_up_the_next(machine: Machine, folder: Path, cache: Path) -> None:
    _open(folder, cache_path=cache).close()
    (cache / "engine.plan").unlink()
    _open(folder, cache_path=cache).close()
    assert [build["timings_given"] for build in machine[1].builds] == ["", "timings of a build"]


def test_timings_of_another_gpu_are_dropped(machine: Machine, folder: Path, cache: Path) -> None:
    (cache / "timing.cache").write_bytes(b"other GPU")
    _open(folder, cache_path=cache).close()
    assert machine[1].builds[0]["timings_given"] == ""


def test_a_cache_that_cannot_be_written_costs_only_time(
    machine: Machine, folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    feeds = _feeds(2, 3)
    with _open(folder, cache_path=cache / "missing") as session:
        _agree(session.run(feeds), feeds)
    assert "cannot be written" in caplog.text


def test_the_second_gpu_is_used_when_asked_for(install: Install, folder: Path) -> None:
    cuda, library = install(FakeCuda(2))
    with _open(folder, "tensorrt:gpu:1") as session:
        cuda.cudaSetDevice(0)  # somebody else's code in this thread
        feeds = _feeds(2, 3)
        _agree(session.run(feeds), feeds)
        assert {owner for owner, _ in cuda.blocks.values()} == {1}
    assert library.builds[0]["gpu"] == 1


def test_the_memory_limit_reaches_the_builder(machine: Machine, folder: Path) -> None:
    _open(folder, memory_limit_bytes=1 << 20).close()
    assert machine[1].builds[0]["workspace"] == (1 << 20) - WEIGHT.nbytes


def test_an_engine_above_the_memory_limit_is_refused(machine: Machine, folder: Path) -> None:
    with pytest.raises(MemoryLimitError, match="4144 bytes"):
        _open(folder, memory_limit_bytes=1000)


def test_too_little_workspace_says_so(install: Install, folder: Path) -> None:
    _, library = install()
    library.workspace_needed = 1 << 30
    with pytest.raises(SessionError, match="insufficient workspace"):
        _open(folder, memory_limit_bytes=1 << 20)


def test_a_full_gpu_is_reported_and_leaves_nothing(install: Install, folder: Path) -> None:
    cuda, _ = install(FakeCuda(memory_bytes=4096 + 200))
    with (
        _open(folder) as session,
        pytest.raises(SessionError, match="cudaMalloc failed: cudaErrorMemoryAlloc"),
    ):
        session.run(_feeds(8, 16)) and session.run(_feeds(8, 16))
    assert cuda.leaks()["blocks"] == 0
    install(cuda := FakeCuda(memory_bytes=100))
    with pytest.raises(SessionError, match="no memory for another context"):
        _open(folder)
    assert cuda.leaks()["streams"] == 0


def test_what_the_parser_refuses_is_named(install: Install, folder: Path) -> None:
    install(refuses=("MatMul",))
    with pytest.raises(SessionError, match="MatMul 'product': no importer found"):
        _open(folder)


def test_a_program_without_shape_ranges_is_refused(machine: Machine, folder: Path) -> None:
    bare = ProgramSpec(**{**vars(SPEC), "options": {}})
    with pytest.raises(SessionError, match=r"no shape ranges for \['x', 'past', 'keep'\]"):
        _open(folder, spec=bare)


def test_a_plan_of_another_program_is_refused(machine: Machine, folder: Path, cache: Path) -> None:
    _open(folder, cache_path=cache).close()
    other = ProgramSpec(**{**vars(SPEC), "outputs": (TensorSpec("total", "float16", ("batch", 4)),)})
    with pytest.raises(SessionError, match="has 'total' as float32, expected"):
        _open(folder, spec=other, cache_path=cache)


def test_an_input_that_decides_a_shape_is_refused(install: Install, tmp_path: Path) -> None:
    install()
    infos = [
        helper.make_tensor_value_info("x", Type.FLOAT, [2, 3]),
        helper.make_tensor_value_info("size", Type.INT64, [2]),
    ]
    out = helper.make_tensor_value_info("o", Type.FLOAT, ["a", "b"])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "size"], ["o"])], "g", infos, [out])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        tmp_path / "r.onnx",
    )
    spec = ProgramSpec(
        "r",
        "tensorrt",
        "fp32",
        (TensorSpec("x", "float32", (2, 3)), TensorSpec("size", "int64", (2,))),
        (TensorSpec("o", "float32", ("a", "b")),),
        ("r.onnx",),
    )
    with pytest.raises(SessionError, match=r"'size' of 'r\.tensorrt' decides a shape"):
        _open(tmp_path, spec=spec)


def test_shapes_outside_the_profile_never_reach_the_engine(machine: Machine, folder: Path) -> None:
    with _open(folder) as session:
        with pytest.raises(FeedError, match="'past' may be 0 to 16"):
            session.run(_feeds(2, 17))
        raw = session._raw
        assert raw is not None
        with pytest.raises(SessionError, match=r"refused shape \(2, 17, 4\).*outside"):
            raw.run(list(_feeds(2, 17).values()))


def test_unknown_units_list_the_known(machine: Machine, folder: Path) -> None:
    with pytest.raises(UnknownChoiceError, match="tensorrt:gpu"):
        _open(folder, "tensorrt:dla")


def test_a_gpu_that_is_not_there(machine: Machine, folder: Path) -> None:
    with pytest.raises(DeviceError, match="CUDA sees 1 GPUs"):
        _open(folder, "tensorrt:gpu:3")


def test_no_driver(install: Install, folder: Path) -> None:
    install(FakeCuda(driver=False))
    with pytest.raises(DeviceError, match="cudaErrorInsufficientDriver"):
        _open(folder)
    (device,) = tensorrt.devices()
    assert not device.usable
    assert "driver" in device.note


def test_no_library(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # the import system's mark of what is not there
    with pytest.raises(DeviceError, match=r"pip install 'edge-sdk\[tensorrt\]'"):
        _open(folder)


def test_devices_are_listed_with_their_names(install: Install) -> None:
    install(FakeCuda(2))
    listed = tensorrt.devices()
    assert [(d.id, d.name, d.usable) for d in listed] == [
        ("tensorrt:gpu", "Fake GPU 0", True),
        ("tensorrt:gpu:1", "Fake GPU 1", True),
    ]


def test_devices_say_what_to_install() -> None:
    (device,) = tensorrt.devices()
    assert device.usable or "edge-sdk[tensorrt]" in device.note or "driver" in device.note


def test_identity_holds_all_that_a_plan_depends_on(machine: Machine) -> None:
    about = tensorrt.identity("tensorrt:gpu")
    assert about == {
        "tensorrt": machine[1].version,
        "cuda_driver": "12080",
        "gpu": "Fake GPU 0",
        "compute_capability": "9.0",
    }


def test_the_fake_gpu_notices_a_forgotten_wait(install: Install) -> None:
    install()
    memory, source, target = Memory(0), np.arange(4.0), np.zeros(4)
    address = memory.allocate(source.nbytes)
    memory.to_device(address, source)
    memory.to_host(target, address)
    assert not target.any()
    memory.wait()
    np.testing.assert_array_equal(target, source)
    memory.free()


def test_the_fake_gpu_notices_an_overrun(install: Install) -> None:
    install()
    memory = Memory(0)
    with pytest.raises(SessionError, match="cudaErrorInvalidValue"):
        memory.to_device(memory.allocate(8), np.zeros(2, np.float64))
    memory.free()
