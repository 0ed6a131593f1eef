"""The complete examples of ARCHITECTURE.md are installed as it says, and run."""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

HOME = Path(__file__).resolve().parents[2]
EXAMPLE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def module_name(path: str) -> str:
    """`export/sdk_export/targets/web.py` -> `sdk_export.targets.web`."""
    return ".".join(Path(path).with_suffix("").parts[1:])


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The files that the page gives in full, imported under the names they would have."""
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(tmp_path / "cache"))
    loaded = {}
    for path, text in EXAMPLE.findall((HOME / "ARCHITECTURE.md").read_text(encoding="utf-8")):
        assert not (HOME / path).exists(), f"{path} is there: the page needs another example"
        name = module_name(path)
        file = tmp_path / f"{name}.py"
        file.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        loaded[name] = module
    return loaded


def test_a_target_is_one_file_and_its_rows(examples, tmp_path, monkeypatch):
    import torch

    import sdk
    from sdk_export.evaluations import evaluate_onnx
    from sdk_export.targets import table
    from sdk_runtimes import backends, choosing, devices, identity, program_files

    row = table.Target("web", "sdk_export.targets.web", ("fp32",), evaluate_onnx, needs="onnxscript")
    monkeypatch.setattr(table, "TARGETS", {**table.TARGETS, "web": row})
    monkeypatch.setattr(
        program_files, "CHECKS", {**program_files.CHECKS, "web": program_files.CHECKS["onnx"]}
    )
    monkeypatch.setattr(choosing, "ORDER", (*choosing.ORDER, ("onnxruntime:cpu", "web")))
    engine = backends.BACKENDS["onnxruntime"]
    opening = {**backends.BACKENDS, "onnxruntime": replace(engine, targets=(*engine.targets, "web"))}
    for module in (backends, choosing, devices, identity):
        monkeypatch.setattr(module, "BACKENDS", opening)

    x = torch.linspace(-1, 1, 6).reshape(2, 3)
    bundle = sdk.export(torch.nn.Linear(3, 4), tmp_path / "net.bundle", target="web", sample_inputs=(x,))
    assert bundle.quality("Linear.web").verdict == "passed"
    assert sdk.verify(bundle.path).passed
    with sdk.load(bundle) as session:
        assert session.run({"input": x.numpy()})["output"].shape == (2, 4)


def test_a_session_is_one_file_and_its_row(examples, tmp_path, monkeypatch):
    import sdk
    from handmade import matmul_bundle
    from sdk_runtimes import backends, choosing, devices, identity

    row = backends._row(examples["sdk_runtimes.sessions.reference"])
    for module in (backends, choosing, devices, identity):
        monkeypatch.setattr(module, "BACKENDS", {**backends.BACKENDS, "reference": row})
    monkeypatch.setattr(choosing, "ORDER", (("reference:cpu", "onnx"), *choosing.ORDER))

    assert [item.id for item in sdk.devices() if item.backend == "reference"] == ["reference:cpu"]
    bundle = matmul_bundle(tmp_path / "matmul.bundle")
    (spec,) = bundle.manifest.programs[0].inputs
    shape = [size if isinstance(size, int) else 2 for size in spec.shape]
    feeds = {spec.name: np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)}
    with sdk.load(bundle) as ours, sdk.load(bundle, "onnxruntime:cpu") as usual, ours.clone() as clone:
        assert ours.device == "reference:cpu"
        for name, wanted in usual.run(feeds).items():
            np.testing.assert_allclose(ours.run(feeds)[name], wanted, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(clone.run(feeds)[name], wanted, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(ours.bind(feeds).run()[name], wanted, rtol=1e-5, atol=1e-5)


def _pruned(network, *, selector="obs", compensation="ls"):
    import torch

    import sdk

    draws = torch.Generator().manual_seed(0)
    images = torch.randn(48, 3, 8, 8, generator=draws)
    return sdk.prune(
        network,
        images,
        sample_inputs=(images[:1],),
        ratio=0.5,
        round_to=1,
        measure=False,
        selector=selector,
        compensation=compensation,
    )


def _two_convolutions():
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())


def test_a_selector_is_one_file_and_its_row(examples, monkeypatch):
    import torch

    from sdk_pruning.selectors import table

    variance = examples["sdk_pruning.selectors.variance"].variance
    monkeypatch.setattr(table, "SELECTORS", {**table.SELECTORS, "variance": variance})
    network = _two_convolutions()
    with torch.no_grad():
        network[0].weight[1::2] *= 0.01  # every second channel is quiet
        network[0].bias[1::2] *= 0.01
    result = _pruned(network, selector="variance")
    assert result.plan.groups["0"].kept == (0, 2, 4, 6)
    assert result.plan.recipe["selector"] == "variance"


def test_a_compensator_is_one_file_and_its_row(examples, monkeypatch):
    from sdk_pruning.compensators import table

    gain = examples["sdk_pruning.compensators.gain"].gain
    monkeypatch.setattr(table, "COMPENSATORS", {**table.COMPENSATORS, "gain": gain})
    errors = {
        name: _pruned(_two_convolutions(), selector="l2", compensation=name).report.relative_error
        for name in ("none", "gain", "ls")
    }
    assert errors["ls"] < errors["gain"] < errors["none"]


def test_a_rule_is_one_file_and_its_row(examples, monkeypatch):
    import torch
    from torch import nn

    from sdk_pruning.rules import table
    from sdk_runtimes.errors import PruningError

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x):
            x = self.stem(x)
            return (self.left(x) + self.right(torch.renorm(x, 2, 1, 1.5))).flatten(1)

    network = Branches()
    with pytest.raises(PruningError, match="'renorm'"):
        _pruned(network)
    for name, rule in examples["sdk_pruning.rules.renorming"].RULES.items():
        monkeypatch.setitem(table.RULES, name, rule)
    result = _pruned(network)
    assert result.model.stem.weight.shape[0] == 4
    assert result.report.masked_difference < 1e-4
