"""What an import loads, each in a fresh process: no torch, no engine, no socket library it does not need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "coremltools",
    "tensorrt",
    "cuda",
)

RUNTIME_MODULES = sorted(
    ".".join(path.relative_to(ROOT / "runtimes").with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "runtimes/sdk_runtimes").rglob("*.py")
)


def loaded(code: str, cwd: Path) -> list[str]:
    """Which of `HEAVY` are loaded after `code` has run in a fresh process."""
    tail = f"\nimport sys, json\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + tail],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "module", ["sdk", "sdk_runtimes", "sdk_models", "sdk_export", "sdk_pruning", "sdk.cli.app"]
)
def test_packages_load_nothing_heavy(module, tmp_path):
    assert loaded(f"import {module}", tmp_path) == []


def test_the_whole_runtime_loads_nothing_heavy(tmp_path):
    assert len(RUNTIME_MODULES) > 40
    assert loaded("\n".join(f"import {module}" for module in RUNTIME_MODULES), tmp_path) == []


def test_every_public_name_of_sdk_loads_nothing_heavy(tmp_path):
    assert loaded("import sdk\nfor name in sdk.__all__: getattr(sdk, name)", tmp_path) == []


def test_every_module_of_the_runtime_can_be_imported_first(tmp_path):
    """No cycle that only shows when a user imports a module other than the usual one first."""
    code = f"""
import importlib, sys
for name in {RUNTIME_MODULES!r}:
    for key in [key for key in sys.modules if key.partition(".")[0] == "sdk_runtimes"]:
        del sys.modules[key]
    importlib.import_module(name)
"""
    assert loaded(code, tmp_path) == []


def test_the_check_itself_can_fail(tmp_path):
    assert loaded("import onnx", tmp_path) == ["onnx"]


def test_help_loads_nothing_heavy(tmp_path):
    code = """
import sys
sys.argv = ["edge-sdk", "--help"]
from sdk.cli.app import main
try:
    main()
except SystemExit as done:
    assert not done.code
"""
    assert loaded(code, tmp_path) == []


def test_listing_devices_and_inspecting_load_no_torch(tmp_path):
    assert "torch" not in loaded("import sdk\nsdk.devices()", tmp_path)
