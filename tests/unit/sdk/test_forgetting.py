"""The verb `forget` and its command."""

import json
import sys
from pathlib import Path

import pytest
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_model
from torch import nn
from typer.testing import CliRunner

from sdk.cli.forget_command import forget as forget_command
from sdk.forgetting import forget
from sdk_runtimes import require
from sdk_runtimes.errors import MissingExtraError

CLASSIFIER = """
import torch
from torch import nn

CENTRES = 3 * torch.eye(4)[:3]

def classifier():
    net = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        net[0].weight.copy_(torch.cat([torch.eye(4), -torch.eye(4)]))
        net[2].weight.copy_(torch.eye(8)[:3])
        net[2].bias.zero_()
    return net

def batches():
    draws = torch.Generator().manual_seed(0)
    for _ in range(5):
        labels = torch.arange(24) % 3
        yield CENTRES[labels] + 0.3 * torch.randn(24, 4, generator=draws), labels
"""

app = typer.Typer()
app.command()(forget_command)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working directory that builds a classifier and gives data."""
    (tmp_path / "blobs.py").write_text(CLASSIFIER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    import blobs

    yield blobs
    del sys.modules["blobs"]


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["blobs:classifier", "--data", "blobs:batches", *arguments])


def parts(module, label):
    batches = list(module.batches())
    inputs, labels = (torch.cat(each) for each in zip(*batches, strict=True))
    chosen = labels == label
    return (inputs[chosen], labels[chosen]), (inputs[~chosen], labels[~chosen])


def test_the_verb_hands_everything_over(module):
    gone, kept = parts(module, 1)
    told = []
    result = forget(
        module.classifier(),
        gone,
        kept,
        method="fidelity",
        strength=0.25,
        layers=["0"],
        seed=3,
        progress=lambda *row: told.append(row),
    )
    report = result.report
    assert (report.method, report.strength, report.layers, report.classes) == ("fidelity", 0.25, ("0",), (1,))
    assert told
    assert result.report.measured.before.forget > 0.9


def test_without_torch_the_message_names_the_pip_line(module, monkeypatch):
    monkeypatch.setattr(require, "is_installed", lambda _module: False)
    gone, kept = parts(module, 1)
    with pytest.raises(MissingExtraError, match="pip install"):
        forget(nn.Linear(1, 1), gone, kept)


def test_the_command_writes_weights_and_prints_the_report(module):
    done = invoke("--class", "1", "--out", "less.safetensors")
    assert done.exit_code == 0, done.output
    assert "forget class 1: ridge" in done.output
    assert "verdict: suppression" in done.output
    net = module.classifier()
    load_model(net, "less.safetensors")
    gone, kept = parts(module, 1)
    with torch.no_grad():
        assert (net(gone[0]).argmax(1) == gone[1]).double().mean() < 0.1
        assert (net(kept[0]).argmax(1) == kept[1]).double().mean() > 0.9
    assert sorted(path.name for path in Path().iterdir() if path.suffix) == ["blobs.py", "less.safetensors"]


def test_the_command_prints_json_and_takes_every_option(module):
    options = [
        "--method",
        "fidelity",
        "--strength",
        "0.5",
        "--layer",
        "2",
        "--seed",
        "2",
        "--json",
        "--quiet",
    ]
    done = invoke("--class", "0", "--class", "2", "--out", "a.safetensors", *options)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["classes"] == [0, 2]
    assert found["layers"] == ["2"]
    assert found["strength"] == 0.5
    assert found["path"] == "a.safetensors"
    assert 0 <= found["measured"]["after"]["retain"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "7", "--out", "a.safetensors"], "class 7 does not occur"),
        (["--class", "1", "--out", "a.npz"], "unknown file type '.npz'"),
        (["--class", "1", "--out", "a.safetensors", "--method", "grad"], "unknown method 'grad'"),
        (["--class", "1", "--out", "there.safetensors"], "exists"),
        (["--class", "1", "--out", "nowhere/a.safetensors"], "could not be written"),
    ],
)
def test_what_cannot_be_is_one_message_and_no_file(module, options, message):
    Path("there.safetensors").write_text("years of work")
    done = invoke(*options)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output
    assert Path("there.safetensors").read_text() == "years of work"
    assert not Path("a.safetensors").exists()


def test_overwrite_replaces(module):
    Path("there.safetensors").write_text("old")
    assert invoke("--class", "1", "--out", "there.safetensors", "--overwrite").exit_code == 0
    with safe_open("there.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"0.weight", "2.bias", "2.weight"}
