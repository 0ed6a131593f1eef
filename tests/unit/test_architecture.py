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
