"""A network with more than 2 GB of weights: exported, proven and run within 2.2 × the weights (issue 2).

One protobuf message holds 2 GiB at most, so the weights must lie beside the graph; and whoever copies them
once too often shows up in the peak. Each process is held to the bar; what all hold at once is printed.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc"),
]

LIMIT = 2.2
SEED = 0

EXPORT = """
import json, resource, sys

import numpy as np, torch, sdk
from sdk.peak_memory import peak_rss_bytes
from torch import nn

WIDTH, HEADS, LAYERS, TOKENS = 2048, 16, 12, 8
target, seed = sys.argv[1], int(sys.argv[2])

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        heads = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(heads.transpose(1, 2).reshape(B, T, C))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))

class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

torch.manual_seed(seed)
model, x = Stack().eval(), torch.randn(1, TOKENS, WIDTH)
weights = sum(p.numel() * p.element_size() for p in model.parameters())
before = peak_rss_bytes()
bundle = sdk.export(model, "large.bundle", target=target, sample_inputs=(x,))
exported = peak_rss_bytes()
with torch.no_grad():
    np.save("y.npy", model(x).numpy())
np.save("x.npy", x.numpy())
print(bundle)
# The kernel counts a child's peak from before its exec on, so this is at least what the parent held then.
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"weights": weights, "model": before, "export": exported, "children": children}))
"""

RUN = """
import json, sys

import numpy as np, sdk
from sdk.peak_memory import peak_rss_bytes

with sdk.load("moved.bundle") as session:
    (y,) = session.run({"x": np.load("x.npy")}).values()
    device = session.device
assert "torch" not in sys.modules
truth = np.load("y.npy")
error = float(np.sqrt(np.mean((y - truth) ** 2) / np.mean(truth**2)))
print(json.dumps({"rel_rmse": error, "device": device, "peak": peak_rss_bytes()}))
"""


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)  # pytest would keep the gigabytes of its last three runs


def status_bytes(pid: int) -> dict[str, int]:
    """The sizes in `/proc/<pid>/status`, in bytes."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[-1] == "kB"}


def children_of(pid: int) -> list[int]:
    """Direct children of any thread of a process."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def watch(pid: int, stop: threading.Event, peaks: dict[str, int]) -> None:
    """Follows what a process and its children hold at the same moment: all pages, and those not of a file."""
    while not stop.wait(0.02):
        try:
            children = [status_bytes(child) for child in children_of(pid)]
            family = [status_bytes(pid), *children]
        except (OSError, KeyError):  # one of them has just ended
            continue
        now = {
            "all at once": sum(each.get("VmRSS", 0) for each in family),
            "all at once, without file pages": sum(each.get("RssAnon", 0) for each in family),
            "largest child": max((each.get("VmHWM", 0) for each in children), default=0),
        }
        peaks.update({name: max(size, peaks.get(name, 0)) for name, size in now.items()})


def figures(folder: Path, code: str, *arguments: str) -> dict:
    """The last line that a script prints in a fresh process, as JSON, and what `watch` saw of it."""
    script = folder / "script.py"
    script.write_text(code)
    child = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "EDGE_SDK_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder)},
    )
    stop, seen = threading.Event(), {}
    watcher = threading.Thread(target=watch, args=(child.pid, stop, seen))
    watcher.start()
    told, _ = child.communicate()
    stop.set()
    watcher.join()
    assert child.returncode == 0, told
    print(told)
    return {**json.loads(told.splitlines()[-1]), **seen}


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_more_than_2_gb_of_weights(target, folder):
    peaks = figures(folder, EXPORT, target, str(SEED))
    weights = peaks["weights"]
    print(target, {name: f"{peak / weights:.2f} × weights" for name, peak in peaks.items()})
    assert weights > 2 << 30
    assert peaks["export"] <= LIMIT * weights
    assert peaks["children"] <= LIMIT * weights

    manifest = json.loads((folder / "large.bundle/manifest.json").read_text())
    assert [record["verdict"] for record in manifest["quality"]] == ["passed"]
    _the_weights_lie_beside_the_graph(folder / "large.bundle", manifest, weights)

    # A path out of the folder would be found from where it was written, and nowhere else.
    (folder / "large.bundle").rename(folder / "moved.bundle")
    ran = figures(folder, RUN)
    print(target, ran)
    assert ran["rel_rmse"] <= 1e-5


def _the_weights_lie_beside_the_graph(bundle: Path, manifest: dict, weights: int) -> None:
    (program,) = manifest["programs"]
    graph, *beside = (bundle / file for file in program["files"])
    assert graph.stat().st_size < 16 << 20
    assert sum(file.stat().st_size for file in beside) >= 0.99 * weights
    for file in (graph, *beside):
        assert file.resolve().is_relative_to(bundle.resolve())
        assert not file.is_symlink()
