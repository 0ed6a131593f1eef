import enum
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdk_runtimes.errors import DeviceError, FeedError, SessionError, UnknownChoiceError
from sdk_runtimes.feeds import Array
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.session import Session
from sdk_runtimes.sessions import coreml as backend
from sdk_runtimes.specs import ProgramSpec, TensorSpec

SPEC = ProgramSpec(
    name="net",
    target="coreml",
    precision="fp32",
    inputs=(
        TensorSpec("batch.x", "float32", (2, 3)),
        TensorSpec("ids", "int64", (2,)),
        TensorSpec("on", "bool", ()),
    ),
    outputs=(TensorSpec("ids", "int64", (2,)), TensorSpec("output_0", "float32", ())),
    files=("programs/net.mlpackage/Manifest.json",),
)


class ComputeUnit(enum.Enum):
    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


class FakeModel:
    """coremltools' MLModel: float32 and int32 arrays of rank 1 and more, by Core ML name."""

    loads: list["FakeModel"]
    compiled: Path

    def __init__(self, path: str, compute_units: ComputeUnit) -> None:
        if "broken" in path:
            raise RuntimeError("Error reading protobuf spec")
        self.path, self.compute_units = path, compute_units
        FakeModel.loads.append(self)

    def get_compiled_model_path(self) -> str:
        return str(FakeModel.compiled)

    def predict(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        assert {name: (array.dtype.name, array.shape) for name, array in feeds.items()} == {
            "batch_x2e_x": ("float32", (2, 3)),
            "ids": ("int32", (2,)),
            "on": ("int32", (1,)),
        }
        return {
            "ids_x0_": feeds["ids"] * (2 if feeds["on"][0] else 1),  # told apart from the input of that name
            "output_0": feeds["batch_x2e_x"].sum().reshape(1),
        }


class FakeCompiledModel(FakeModel):
    """coremltools' CompiledMLModel."""


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    library = ModuleType("coremltools")
    models = SimpleNamespace(MLModel=FakeModel, CompiledMLModel=FakeCompiledModel)
    library.__dict__.update(__version__="9.0", ComputeUnit=ComputeUnit, models=models)
    monkeypatch.setitem(sys.modules, "coremltools", library)
    monkeypatch.setattr(backend, "_is_macos", lambda: True)
    FakeModel.loads = []
    FakeModel.compiled = tmp_path / "compiled-by-coreml"
    FakeModel.compiled.mkdir()
    (FakeModel.compiled / "model.mil").write_text("program")
    return library


def feeds() -> dict[str, Array]:
    return {
        "batch.x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "ids": np.array([4, 5]),
        "on": np.asarray(1, bool),
    }


def opened(folder: Path, device: str = "coreml:all", **options: Any) -> Session:
    return Session(SPEC, backend.open_session(SPEC, folder, device, OpenOptions(**options)))


def test_names_and_types_are_carried_and_restored(mac: ModuleType, tmp_path: Path) -> None:
    got = opened(tmp_path).run(feeds())
    np.testing.assert_array_equal(got["ids"], [8, 10])
    assert got["ids"].dtype == np.int64
    assert got["output_0"].shape == ()
    assert got["output_0"] == 15


def test_the_package_is_the_folder_of_the_entry(mac: ModuleType, tmp_path: Path) -> None:
    opened(tmp_path)
    assert FakeModel.loads[0].path == str(tmp_path / "programs/net.mlpackage")


@pytest.mark.parametrize(
    ("unit", "compute_unit"),
    [
        ("all", ComputeUnit.ALL),
        ("gpu", ComputeUnit.CPU_AND_GPU),
        ("npu", ComputeUnit.CPU_AND_NE),
        ("cpu", ComputeUnit.CPU_ONLY),
    ],
)
def test_units(mac: ModuleType, tmp_path: Path, unit: str, compute_unit: ComputeUnit) -> None:
    session = opened(tmp_path, f"coreml:{unit}")
    assert FakeModel.loads[0].compute_units is compute_unit
    assert session.device == f"coreml:{unit}"


def test_bound_runs_fill_the_buffers(mac: ModuleType, tmp_path: Path) -> None:
    binding = opened(tmp_path).bind(feeds())
    binding.inputs["ids"][...] = 3
    assert binding.run()["ids"].tolist() == [6, 6]


def test_clones_share_the_model(mac: ModuleType, tmp_path: Path) -> None:
    session = opened(tmp_path)
    with session.clone() as clone:
        assert clone.run(feeds())["output_0"] == 15
    assert len(FakeModel.loads) == 1


def test_a_compilation_is_kept(mac: ModuleType, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    opened(tmp_path, cache_path=blobs)
    opened(tmp_path, cache_path=blobs)
    assert [type(model) for model in FakeModel.loads] == [FakeModel, FakeCompiledModel]
    assert Path(FakeModel.loads[1].path, "model.mil").read_text() == "program"


def test_a_compilation_that_cannot_be_kept_is_no_matter(mac: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert opened(tmp_path, cache_path=tmp_path / "file").run(feeds())["output_0"] == 15


def test_values_beyond_32_bits_are_refused(mac: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="int32"):
        opened(tmp_path).run({**feeds(), "ids": np.array([1 << 40, 0])})


def test_a_package_that_core_ml_refuses(mac: ModuleType, tmp_path: Path) -> None:
    spec = replace(SPEC, files=("programs/broken.mlpackage/Manifest.json",))
    with pytest.raises(SessionError, match=r"did not load 'broken\.mlpackage'"):
        backend.open_session(spec, tmp_path, "coreml:cpu", OpenOptions())


def test_unknown_units_are_refused(mac: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UnknownChoiceError, match="'coreml:npu'"):
        opened(tmp_path, "coreml:ane")


def test_elsewhere_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backend, "_is_macos", lambda: False)
    for call in (lambda: opened(tmp_path), lambda: backend.identity("coreml:cpu")):
        with pytest.raises(DeviceError, match=r"(?s)Apple's systems.*on a Mac"):
            call()
    assert not any(device.usable for device in backend.devices())


def test_devices_on_a_mac(mac: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_installed", lambda _name: True)
    assert {device.id: device.kind for device in backend.devices() if device.usable} == {
        "coreml:all": "auto",
        "coreml:gpu": "gpu",
        "coreml:npu": "npu",
        "coreml:cpu": "cpu",
    }
    monkeypatch.setattr(backend, "is_installed", lambda _name: False)
    assert all("pip install 'edge-sdk[coreml]'" in device.note for device in backend.devices())
    assert json.dumps(dict(backend.identity("coreml:cpu")))
