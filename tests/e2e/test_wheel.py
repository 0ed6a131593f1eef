"""The wheel in a clean environment: what is in it, what it weighs, and that it runs bundles without torch."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # builds, and downloads what the runtime needs

HOME = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = [HOME / each for each in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
ABSENT = (
    "torch",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "openvino",
    "coremltools",
    "tensorrt",
    "sklearn",
    "pytest",
)
MOST_BYTES = 250e6
ROUNDS = 11


class Clean:
    """A virtual environment that holds the wheel, what it requires, and nothing else: not even pip."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *command: str, cwd: Path, status: int = 0) -> str:
        """What a command of this environment prints."""
        done = subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
                "EDGE_SDK_CACHE_DIR": str(self.folder / "cache"),
            },
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str, cwd: Path) -> str:
        """What a script prints in a fresh process of this environment."""
        return self.run("python", "-c", code, cwd=cwd)

    @property
    def site_packages(self) -> Path:
        (found,) = self.folder.rglob("site-packages")
        return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(HOME)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory) -> Clean:
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    made = Clean(folder)
    pip = [sys.executable, "-m", "pip", "-q", "--python", str(made.bin / "python"), "install", str(wheel)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """Exported in this environment, which has torch; x.npy and y.npy beside it."""
    import torch

    import sdk

    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    model, x = torch.nn.Sequential(*layers).eval(), torch.randn(1, 3, 8, 8)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setenv("EDGE_SDK_CACHE_DIR", str(folder / "cache"))
        sdk.export(model, folder / "net.bundle", sample_inputs=(x,))
        np.save(folder / "x.npy", x.numpy())
        np.save(folder / "y.npy", model(x).numpy())
    return folder


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_six_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = {
        f"{package.name}/{path.relative_to(package).as_posix()}"
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(PACKAGES) == 6
    assert {f"{package.name}/py.typed" for package in PACKAGES} | {"sdk/report.css"} <= ours
    beside = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    assert names - beside == ours
    assert any(name.endswith("/licenses/LICENSE") for name in beside)


def test_the_runtime_requires_no_torch(wheel):
    required = metadata(wheel).get_all("Requires-Dist", [])
    name_of = re.compile(r"[\w-]+").match
    base, extras = (
        {name_of(line)[0].replace("-", "_") for line in required if ("extra ==" in line) is extra}
        for extra in (False, True)
    )
    assert len(base) == len(PROJECT["project"]["dependencies"])
    assert not base & set(ABSENT)
    assert {"torch", "onnx", "openvino"} <= extras  # the same reading does find them


def test_a_runtime_install_is_small_and_has_no_torch(clean, tmp_path):
    files = [path for path in clean.site_packages.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"site-packages without pip and setuptools: {size / 1e6:.1f} MB in {len(files)} files")
    assert size <= MOST_BYTES
    code = f"from importlib.util import find_spec\nprint([each for each in {ABSENT!r} if find_spec(each)])"
    assert clean.python(code, tmp_path).strip() == "[]"


def test_the_package_comes_from_the_wheel(clean, tmp_path):
    told = clean.python("import sdk, sdk_runtimes; print(sdk.__file__, sdk_runtimes.__file__)", tmp_path)
    assert all(Path(each).is_relative_to(clean.site_packages) for each in told.split())


def test_the_command_says_its_version(clean, tmp_path):
    version = PROJECT["project"]["version"]
    assert clean.run("edge-sdk", "--version", cwd=tmp_path).strip() == f"edge-sdk {version}"
    assert clean.python("import sdk; print(sdk.__version__)", tmp_path).strip() == version


def test_the_command_verifies_and_runs_a_bundle(clean, bundle, tmp_path):
    place = str(bundle / "net.bundle")
    report = clean.run("edge-sdk", "verify", place, "--json", cwd=tmp_path)
    assert json.loads(report)["passed"] is True
    feeds = f"input={bundle / 'x.npy'}"
    clean.run("edge-sdk", "run", place, "-i", feeds, "-o", "out.npz", cwd=tmp_path)
    with np.load(tmp_path / "out.npz") as got:
        np.testing.assert_allclose(got["output"], np.load(bundle / "y.npy"), rtol=1e-4, atol=1e-6)


def test_python_runs_a_bundle(clean, bundle, tmp_path):
    code = f"""
import sys, numpy as np, sdk
with sdk.load({str(bundle / "net.bundle")!r}) as session:
    np.save("y.npy", session.run({{"input": np.load({str(bundle / "x.npy")!r})}})["output"])
assert "torch" not in sys.modules
"""
    clean.python(code, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), np.load(bundle / "y.npy"), rtol=1e-4, atol=1e-6)


def test_an_altered_bundle_is_refused_there_too(clean, bundle, tmp_path):
    altered = shutil.copytree(bundle / "net.bundle", tmp_path / "altered.bundle")
    (graph,) = altered.glob("programs/*.onnx")
    graph.write_bytes(graph.read_bytes()[:-1])
    report = clean.run("edge-sdk", "verify", str(altered), "--json", cwd=tmp_path, status=1)
    assert json.loads(report)["error"]["kind"] == "IntegrityError"


def test_export_names_what_to_install(clean, tmp_path):
    code = """
import sdk
try:
    sdk.export(object())
except sdk.errors.MissingExtraError as error:
    print(error)
"""
    assert "pip install 'edge-sdk[export]'" in clean.python(code, tmp_path)
    assert not list(tmp_path.iterdir())


def test_devices_are_listed(clean, tmp_path):
    devices = json.loads(clean.run("edge-sdk", "devices", "--json", cwd=tmp_path))
    usable = {device["id"]: (device["usable"], device["note"]) for device in devices}
    assert usable["onnxruntime:cpu"][0] is True
    assert usable["openvino:cpu"][0] is False
    assert "edge-sdk[openvino]" in usable["openvino:cpu"][1]


def test_every_public_name_is_there(clean, tmp_path):
    clean.python("import sdk\nfor name in sdk.__all__: getattr(sdk, name)", tmp_path)


def test_importing_it_costs_at_most_twice_numpy(clean, tmp_path):
    sides: dict[str, list[float]] = {"": [], "import numpy": [], "import sdk": []}
    for turn in range(ROUNDS + 1):
        for code, times in sides.items():
            start = time.perf_counter()
            clean.python(code, tmp_path)
            if turn:  # the first one writes bytecode and fills the disk cache
                times.append(time.perf_counter() - start)
    bare, numpy, ours = (statistics.median(times) for times in sides.values())
    print(f"numpy +{(numpy - bare) * 1e3:.0f} ms, sdk +{(ours - bare) * 1e3:.0f} ms")
    assert ours - bare <= 2 * (numpy - bare)
