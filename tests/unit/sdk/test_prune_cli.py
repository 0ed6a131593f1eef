"""`edge-sdk prune`, and that `forget` is a command."""

import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import sdk
import sdk_pruning
from sdk.cli.app import app
from sdk.cli.prune_command import parse_round_to
from sdk_runtimes.errors import ArgumentError

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3)
        self.second = nn.Conv2d(16, 24, 3)
        self.head = nn.Linear(24, 4)

    def forward(self, image):
        x = self.second(self.first(image).relu()).relu()
        return self.head(x.mean((2, 3)))

def build():
    torch.manual_seed(0)
    return Net().eval(), (torch.zeros(1, 3, 8, 8),)

def photos():
    draws = torch.Generator().manual_seed(0)
    for _ in range(4):
        yield torch.randn(16, 3, 8, 8, generator=draws)

def nothing():
    return []
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """A module in the working directory that builds a network and gives data."""
    (tmp_path / "small.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(tmp_path / "cache"))
    import small

    yield small
    del sys.modules["small"]


def edge(*arguments: str):
    return CliRunner().invoke(app, [*arguments])


def prune(*arguments: str):
    return edge("prune", "small:build", "--data", "small:photos", "--out", "pruned", *arguments)


def test_it_writes_three_files_and_prints_the_report(module):
    done = prune("--ratio", "0.5", "--threads", "1")
    assert done.exit_code == 0, done.output
    assert "onnx on onnxruntime:cpu, threads=1" in done.output
    assert sorted(path.name for path in Path("pruned").iterdir()) == [
        "plan.json",
        "report.txt",
        "weights.safetensors",
    ]
    assert Path("pruned/report.txt").read_text().splitlines()[1] in done.output  # FLOPs
    model = sdk_pruning.load_pruned(module.build()[0], "pruned")
    assert model.first.weight.shape[0] == 8
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 4)


def test_it_exports_what_it_pruned(module):
    done = prune("--ratio", "0.5", "--no-measure", "--export", "net.bundle")
    assert done.exit_code == 0, done.output
    assert "passed on onnxruntime:cpu" in done.output
    model = sdk_pruning.load_pruned(module.build()[0], "pruned")
    image = next(module.photos())[:1]
    with sdk.load("net.bundle", threads=1) as session, torch.no_grad():
        found = session.run({"image": image.numpy()})["output"]
        assert torch.allclose(torch.from_numpy(found), model(image), atol=1e-4)


def test_json_holds_the_figures_and_takes_every_option():
    options = (
        "--flops 0.6 --target onnx --device cpu --no-measure --protect first --selector union "
        "--compensation delta --round-to 4 --attention none --samples 32 --seed 3 --json --quiet"
    )
    done = prune(*options.split())
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["flops_left"] <= 0.6
    assert found["samples"] == 32
    assert found["latency_ms"] is None
    assert found["path"] == "pruned"
    assert {group["name"] for group in found["groups"]} == {"second"}
    recipe = found["recipe"]
    assert (recipe["selector"], recipe["compensation"], recipe["seed"]) == ("union", "delta", 3)
    assert recipe["round_to"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "exactly one"),
        (["--ratio", "0.5", "--flops", "0.5"], "exactly one"),
        (["--ratio", "1.5"], "ratio is 1.5"),
        (["--ratio", "0.5", "--selector", "best"], "unknown selector 'best'"),
        (["--ratio", "0.5", "--round-to", "some"], "--round-to 'some' cannot be read"),
        (["--ratio", "0.5", "--protect", "*"], "nothing in Net can be pruned"),
        (["--ratio", "0.5", "--target", "tflite"], "unknown target 'tflite'"),
        (["--ratio", "0.5", "--data", "small:nothing"], "no samples"),
        (["--ratio", "0.5", "--out", "small.py"], "is a file"),
        (["--ratio", "0.5", "--out", "there"], "holds plan.json"),
        (["--ratio", "0.5", "--out", "closed/below", "--no-measure"], "could not be written"),
        (["--ratio", "0.5", "--export", "there"], "exists"),
    ],
)
def test_what_cannot_be_is_one_message_and_no_file(options, message):
    Path("there").mkdir()
    Path("there/plan.json").write_text("years of work")
    Path("closed").write_text("a file where a folder would have to be")
    done = prune("--quiet", *options)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output
    assert not Path("pruned").exists()
    assert Path("there/plan.json").read_text() == "years of work"


def test_overwrite_replaces():
    Path("pruned").mkdir()
    Path("pruned/plan.json").write_text("old")
    assert prune("--ratio", "0.5", "--no-measure", "--overwrite").exit_code == 0
    assert sdk_pruning.load_plan("pruned/plan.json").groups["first"].units == 16


def test_errors_are_json_too():
    done = prune("--ratio", "2", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["kind"] == "ArgumentError"


def test_numbers_and_auto_are_what_round_to_takes():
    assert (parse_round_to("auto"), parse_round_to("8")) == ("auto", 8)
    with pytest.raises(ArgumentError, match="--round-to 8"):
        parse_round_to("8.5")


def test_both_verbs_are_commands():
    shown = edge("--help").output
    assert "prune" in shown
    assert "forget" in shown
    assert edge("forget", "--help").exit_code == 0
