"""A user's own `export.py`, `quant/`, `runtimes.py` beside their script harm neither them nor us."""

import os
import subprocess
import sys

import pytest

NAMES = (
    "export",
    "runtimes",
    "pruning",
    "models",
    "bundle",
    "session",
    "gate",
    "specs",
    "errors",
    "table",
    "onnx_model",
)
FOLDERS = ("quant", "targets", "passes", "sessions", "cli", "tests", "samples")

SCRIPT = """
import export, runtimes, quant, targets          # the user's own
assert export.MINE == runtimes.MINE == quant.MINE == targets.MINE == 1
import numpy as np, torch, sdk
model = torch.nn.Linear(4, 2)
sdk.export(model, "net.bundle", target=["onnx", "openvino"], sample_inputs=(torch.randn(1, 4),))
for device in ("onnxruntime:cpu", "openvino:cpu"):
    with sdk.load("net.bundle", device) as session:
        session.run({"input": np.zeros((1, 4), np.float32)})
assert export.MINE == 1
print("done")
"""


@pytest.fixture
def project(tmp_path):
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("MINE = 1\n")
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("MINE = 1\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def run(project, *command):
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=project,
        check=False,
        env={**os.environ, "EDGE_SDK_CACHE_DIR": str(project / "cache")},
    )


def test_a_script_beside_such_files_works(project):
    done = run(project, sys.executable, "script.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("done")


def test_the_command_beside_such_files_works(project):
    (project / "mine.py").write_text(
        "import torch\nimport export\n\ndef build():\n    return torch.nn.Linear(4, 2), (torch.ones(1, 4),)\n"
    )
    script = "from sdk.cli.app import main; main()"
    done = run(project, sys.executable, "-c", script, "export", "mine:build", "-o", "net.bundle", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (project / "net.bundle" / "manifest.json").is_file()
