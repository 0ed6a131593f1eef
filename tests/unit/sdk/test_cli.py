import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from handmade import SIZE, matmul_bundle
from sdk.cli.app import app
from sdk.matmul_model import matmul_model
from sdk_runtimes.errors import LoweringError, QualityError

ADD_ONE = """
import torch

class AddOne(torch.nn.Module):
    def forward(self, x):
        return x + 1

def build():
    return AddOne(), (torch.ones(2, 3),)

class Noisy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16)

    def forward(self, x):
        return self.layer(x)

def noisy():
    torch.manual_seed(0)
    return Noisy(), (torch.randn(2, 16),)

def triple():
    return 1, 2, 3
"""


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tmp_path):
    return matmul_bundle(tmp_path / "matmul.bundle")


@pytest.fixture
def add_one(tmp_path, monkeypatch):
    """A module in the working directory that builds a model."""
    (tmp_path / "add_one.py").write_text(ADD_ONE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("add_one", None)


def edge(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def edge_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("edge-sdk")
    return subprocess.run(
        [command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from sdk.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'coremltools', 'pydantic', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("export", "prune", "forget", "verify", "inspect", "run", "bench", "devices", "cache"):
        assert f" {command} " in done.stdout


def test_version_is_the_one_of_the_distribution():
    from importlib.metadata import version

    assert edge("--version").stdout.strip() == f"edge-sdk {version('edge-sdk')}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(shell):
    done = edge_process(_EDGE_SDK_COMPLETE=f"source_{shell}")
    assert done.returncode == 0, done.stderr
    assert "_EDGE_SDK_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["inspect"], ["bench", "x", "--runs", "0"], ["run", "--no"]]
)
def test_usage_errors_end_with_2(arguments):
    result = edge(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_our_errors_end_with_1_and_say_what_why_and_fix(tmp_path):
    done = edge_process("inspect", tmp_path / "none.bundle")
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: there is no bundle at")
    assert lines[1].startswith("  why: ")
    assert lines[2].startswith("  fix: ")
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = edge_process("inspect", tmp_path / "none.bundle", "--debug")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr


def test_errors_are_json_too(tmp_path):
    result = edge("inspect", tmp_path / "none.bundle", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "BundleError"
    assert set(error) == {"kind", "what", "why", "fix"}


@pytest.mark.parametrize("error", [(QualityError("off"), 3), (LoweringError("no"), 1)])
def test_the_gate_has_an_exit_code_of_its_own(monkeypatch, bundle, error):
    def refuse(*_args, **_options):
        raise error[0]

    monkeypatch.setattr("sdk_runtimes.bundle.open_bundle", refuse)
    assert edge("inspect", bundle.path).exit_code == error[1]


def test_inspect_prints_everything(bundle):
    words = edge("inspect", bundle.path).stdout
    for expected in (
        bundle.digest,
        "matmul.onnx",
        f"X: float32[{SIZE}, {SIZE}]",
        "programs/matmul.onnx",
        bundle.manifest.files["programs/matmul.onnx"].sha256,
        "passed on onnxruntime:cpu",
        "licence Apache-2.0",
        "tests.handmade",
        "golden/matmul.safetensors",
        np.__version__,
        "8.19 kFLOP",
    ):
        assert expected in words


@pytest.mark.parametrize("verdict", ["unverified", "none"])
def test_what_is_unverified_is_said_in_every_print(tmp_path, verdict):
    path = matmul_bundle(tmp_path / "u.bundle", verdict=verdict).path
    assert "UNVERIFIED" in edge("inspect", path).stdout
    assert "UNVERIFIED" in edge("bench", path, "--runs", 1, "--no-floor", "--no-cold-start").stdout


def test_inspect_json_is_the_manifest(bundle):
    told = json.loads(edge("inspect", bundle.path, "--json").stdout)
    assert told["digest"] == bundle.digest
    assert told["programs"][0]["name"] == "matmul"
    assert told["quality"][0]["verdict"] == "passed"


def test_verify_passes_and_ends_with_0(bundle):
    result = edge("verify", bundle.path)
    assert result.exit_code == 0, result.output
    assert "passed" in result.stdout
    told = json.loads(edge("verify", bundle.path, "--json").stdout)
    assert told["passed"] is True
    assert told["programs"][0]["cases"] == 1


def test_verify_of_an_altered_bundle_ends_with_1(bundle):
    graph = bundle.path / "programs/matmul.onnx"
    data = bytearray(graph.read_bytes())
    data[-60] ^= 1
    graph.write_bytes(data)
    result = edge("verify", bundle.path)
    assert result.exit_code == 1
    assert "programs/matmul.onnx" in result.stderr


def test_run_reads_and_writes_arrays(bundle, tmp_path):
    x = np.random.default_rng(5).standard_normal((SIZE, SIZE), np.float32)
    np.savez(tmp_path / "x.npz", X=x)
    result = edge("run", bundle.path, "-i", tmp_path / "x.npz", "-o", tmp_path / "y.safetensors", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["device"] == "onnxruntime:cpu"
    y = load_file(tmp_path / "y.safetensors")["Y"]
    assert told["outputs"]["Y"]["max"] == pytest.approx(y.max())
    np.save(tmp_path / "x.npy", x)
    again = edge("run", bundle.path, "-i", f"X={tmp_path / 'x.npy'}", "-o", tmp_path / "y.npz")
    assert again.exit_code == 0, again.output
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["Y"], y)


def test_run_without_inputs_says_which_it_takes(bundle):
    result = edge("run", bundle.path)
    assert result.exit_code == 1
    assert f"X: float32[{SIZE}, {SIZE}]" in result.stderr
    assert "--input X=FILE.npy" in result.stderr


def test_run_refuses_a_wrong_shape(bundle, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, SIZE), np.float32))
    result = edge("run", bundle.path, "-i", f"X={tmp_path / 'x.npy'}")
    assert result.exit_code == 1
    assert "expected float32" in result.stderr


def test_run_overwrites_only_when_asked(bundle, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((SIZE, SIZE), np.float32))
    out = tmp_path / "y.npz"
    out.write_text("mine")
    given = ("run", bundle.path, "-i", f"X={tmp_path / 'x.npy'}", "-o", out)
    refused = edge(*given)
    assert refused.exit_code == 1
    assert "--overwrite" in refused.stderr
    assert out.read_text() == "mine"
    assert edge(*given, "--overwrite").exit_code == 0
    assert np.load(out)["Y"].shape == (SIZE, SIZE)


def test_bench_measures_and_remembers(bundle):
    result = edge("bench", bundle.path, "--runs", 3, "--threads", 1, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    side = told["sides"][0]
    assert side["timing"]["runs"] == 3
    assert side["cold_start"]["total_ms"] > 0
    assert told["peaks"]["gemm_gflops"] > 0
    kinds = {entry["kind"] for entry in json.loads(edge("cache", "list", "--json").stdout)["entries"]}
    assert "speeds" in kinds


def test_bench_writes_a_report(bundle, tmp_path):
    out = tmp_path / "report.html"
    result = edge("bench", bundle.path, "--runs", 1, "--no-floor", "--no-cold-start", "--html", out)
    assert result.exit_code == 0, result.output
    assert bundle.digest in out.read_text()


def test_devices_are_listed():
    told = json.loads(edge("devices", "--json").stdout)
    assert {"id": "onnxruntime:cpu", "usable": True}.items() <= next(
        row for row in told if row["id"] == "onnxruntime:cpu"
    ).items()
    assert "onnxruntime:cpu" in edge("devices").stdout


def test_cache_is_cleared(bundle, tmp_path):
    edge("verify", bundle.path)
    edge("bench", bundle.path, "--runs", 1, "--no-floor", "--no-cold-start")
    assert json.loads(edge("cache", "list", "--json").stdout)["entries"]
    assert json.loads(edge("cache", "clear", "--json").stdout)["freed_bytes"] > 0
    assert json.loads(edge("cache", "list", "--json").stdout)["entries"] == []
    assert edge("cache", "path").stdout.strip() == str(tmp_path / "cache")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nowhere_at_all:build", "cannot be imported"),
        ("add_one:biuld", "'build'"),
        ("add_one", "MODULE:FUNCTION"),
        ("add_one:triple", "3 values"),
    ],
)
def test_export_says_what_is_wrong_with_the_source(add_one, source, expected):
    result = edge("export", source)
    assert result.exit_code == 1, result.output
    assert expected in result.stderr


def test_export_takes_a_function_and_writes_a_bundle(add_one):
    result = edge("export", "add_one:build", "-t", "onnx", "--dynamic", "x.0=batch:1:8", "--licence", "MIT")
    assert result.exit_code == 0, result.output
    assert "passed on onnxruntime:cpu" in result.stdout
    told = json.loads(edge("inspect", "AddOne.bundle", "--json").stdout)
    assert told["licence"] == "MIT"
    assert told["programs"][0]["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 3]}]
    (symbol,) = told["programs"][0]["symbols"]
    assert (symbol["symbol"], symbol["minimum"], symbol["maximum"]) == ("batch", 1, 8)
    assert "batch from 1 to 8" in edge("inspect", "AddOne.bundle").stdout
    np.save("x.npy", np.full((5, 3), 2, np.float32))
    assert edge("run", "AddOne.bundle", "-i", "x=x.npy", "-o", "y.npz").exit_code == 0
    np.testing.assert_array_equal(np.load("y.npz")["output"], np.full((5, 3), 3))


def test_export_overwrites_only_when_asked(add_one):
    (add_one / "mine.bundle").mkdir()
    (add_one / "mine.bundle/note.txt").write_text("mine")
    refused = edge("export", "add_one:build", "-o", "mine.bundle", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"]["kind"] == "OutputExistsError"
    assert (add_one / "mine.bundle/note.txt").read_text() == "mine"
    assert edge("export", "add_one:build", "-o", "twice.bundle").exit_code == 0
    assert edge("export", "add_one:build", "-o", "twice.bundle").exit_code == 1
    assert edge("export", "add_one:build", "-o", "twice.bundle", "--overwrite").exit_code == 0


def test_export_without_the_gate_says_unverified(add_one):
    result = edge("export", "add_one:build", "--gate", "off", "-o", "un.bundle")
    assert result.exit_code == 0, result.output
    assert "UNVERIFIED" in result.stdout


def test_the_gate_ends_with_3_and_leaves_nothing(add_one):
    result = edge("export", "add_one:noisy", "-o", "n.bundle", "-p", "fp16", "--tolerance", "1e-9")
    assert result.exit_code == 3, result.output
    assert not (add_one / "n.bundle").exists()


@pytest.mark.parametrize(
    ("option", "value", "known"), [("-t", "tflite", "'openvino'"), ("-p", "fp8", "'fp16'")]
)
def test_unknown_targets_and_precisions_list_the_known(add_one, option, value, known):
    result = edge("export", "add_one:build", option, value)
    assert result.exit_code == 1
    assert known in result.stderr


def test_export_takes_an_onnx_file(add_one):
    (add_one / "net.onnx").write_bytes(matmul_model(SIZE))
    result = edge("export", "net.onnx", "-o", "net.bundle", "--name", "product")
    assert result.exit_code == 0, result.output
    told = json.loads(edge("inspect", "net.bundle", "--json").stdout)
    assert [program["name"] for program in told["programs"]] == ["product"]


def test_bench_against_pytorch(add_one):
    assert edge("export", "add_one:build", "-o", "a.bundle").exit_code == 0
    result = edge(
        "bench",
        "a.bundle",
        "--runs",
        2,
        "--no-floor",
        "--no-cold-start",
        "--against",
        "add_one:build",
        "--json",
    )
    assert result.exit_code == 0, result.output
    sides = json.loads(result.stdout)["sides"]
    assert [side["device"] for side in sides] == ["eager:cpu", "onnxruntime:cpu"]
    assert sides[0]["ratio"] == 1.0
