"""The gate can fail: faults planted in the shipped bytes are found, named, and leave nothing behind."""

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sdk
from faults import TARGETS, Weight, net, plant, scaled, transposed
from sdk_export.gate import Run
from sdk_runtimes.errors import QualityError
from sdk_runtimes.manifest import Tolerance


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def refused(folder: Path, model: nn.Module, inputs: tuple[Tensor, ...], **options: object) -> QualityError:
    """Exports into an empty folder; expects a refusal, and that nothing stays, not even a hidden file."""
    with pytest.raises(QualityError) as caught:
        sdk.export(model, folder / "out.bundle", sample_inputs=inputs, **options)
    assert list(folder.iterdir()) == []
    assert caught.value.what
    assert caught.value.why
    assert caught.value.fix
    return caught.value


LEAVES = ("stem", "blocks.1.mix.0", "head")


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_scaled_weight_is_refused_and_its_module_named(target, leaf, tmp_path, monkeypatch):
    model, inputs = net()
    plant(monkeypatch, target, scaled(model.get_submodule(leaf)))
    error = refused(tmp_path, model, inputs, target=target)
    assert f"'{leaf}' (Linear)" in error.why
    assert f"Net.{target}" in error.what


@pytest.mark.parametrize("target", TARGETS)
def test_a_swapped_axis_is_refused_and_its_module_named(target, tmp_path, monkeypatch):
    model, inputs = net()
    plant(monkeypatch, target, transposed(model.blocks[0].mix[2]))
    assert "'blocks.0.mix.2' (Linear)" in refused(tmp_path, model, inputs, target=target).why


def test_the_fault_in_one_of_two_targets_takes_both_down(tmp_path, monkeypatch):
    model, inputs = net()
    plant(monkeypatch, "openvino", scaled(model.head))
    error = refused(tmp_path, model, inputs, target=["onnx", "openvino"])
    assert "Net.openvino" in error.what


def test_a_bundle_that_was_there_survives_a_refusal(tmp_path, monkeypatch):
    model, inputs = net()
    before = sdk.export(model, tmp_path / "out.bundle", sample_inputs=inputs)
    plant(monkeypatch, "onnx", scaled(model.head))
    with pytest.raises(QualityError):
        sdk.export(model, tmp_path / "out.bundle", sample_inputs=inputs, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.bundle"]
    assert sdk.inspect(tmp_path / "out.bundle").digest == before.digest


@pytest.mark.parametrize("target", ["onnx", "openvino", "tensorrt"])
def test_outputs_in_the_wrong_order_are_refused(target, tmp_path, monkeypatch):
    home = importlib.import_module(
        "sdk_export.onnx_lowering" if target == "tensorrt" else f"sdk_export.targets.{target}"
    )
    build = home.build_model

    def build_and_swap(*args, **options):
        model = build(*args, **options)
        outputs = model.graph.outputs
        outputs[0], outputs[1] = outputs[1], outputs[0]
        return model

    monkeypatch.setattr(home, "build_model", build_and_swap)
    model, inputs = net()
    assert "rel. RMSE" in refused(tmp_path, model, inputs, target=target).what


def test_outputs_under_each_others_names_are_refused_in_core_ml(tmp_path, monkeypatch):
    home = importlib.import_module("sdk_export.targets.coreml")
    write = home.write
    monkeypatch.setattr(
        home, "write", lambda c, p, f: write(dataclasses.replace(c, outputs=c.outputs[::-1]), p, f)
    )
    model, inputs = net()
    assert "rel. RMSE" in refused(tmp_path, model, inputs, target="coreml").what


class Saturating(nn.Module):
    """Between `grow` and `shrink` values are beyond fp16's 65504."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.grow = nn.Linear(8, 8)
        self.shrink = nn.Linear(8, 8)
        self.last = nn.Linear(8, 8)
        with torch.no_grad():
            self.grow.weight.abs_().mul_(1.5e5)
            self.shrink.weight.mul_(1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.shrink(self.grow(torch.sigmoid(self.first(x))))))


def saturating() -> tuple[Saturating, tuple[Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Saturating().eval(), (torch.randn(4, 8),)


@pytest.mark.parametrize("target", ["onnx", "coreml", "tensorrt"])
def test_a_saturating_op_is_refused_in_fp16(target, tmp_path):
    model, inputs = saturating()
    error = refused(tmp_path, model, inputs, target=target, precision="fp16")
    assert "'grow' (Linear)" in error.why
    assert "NaN" in error.what or "rel. RMSE" in error.what


@pytest.mark.parametrize("target", ["onnx", "tensorrt"])
def test_repair_keeps_what_saturates_in_fp32_and_says_so(target, tmp_path):
    model, inputs = saturating()
    bundle = sdk.export(
        model,
        tmp_path / "out.bundle",
        target=target,
        sample_inputs=inputs,
        precision="fp16",
        gate=sdk.Gate(repair=True),
    )
    record = bundle.quality(bundle.program())
    assert record is not None
    assert record.repaired[0] == "grow"
    assert set(record.repaired) <= {"grow", "shrink"}
    assert bundle.program().precision == "fp16"
    assert max(item.rel_rmse for item in record.outputs) <= 2e-2


def test_repair_of_a_target_without_mixed_precision_promotes_the_whole(tmp_path):
    model, inputs = saturating()
    bundle = sdk.export(
        model,
        tmp_path / "out.bundle",
        target="coreml",
        sample_inputs=inputs,
        precision="fp16",
        gate=sdk.Gate(repair=True),
    )
    record = bundle.quality(bundle.program())
    assert record is not None
    assert record.repaired == ("(the whole program)",)
    assert bundle.program().precision == "fp32"


def test_repair_does_not_hide_a_fault_that_no_precision_mends(tmp_path, monkeypatch):
    model, inputs = net()
    plant(monkeypatch, "onnx", scaled(model.stem))
    refused(tmp_path, model, inputs, gate=sdk.Gate(repair=True))


class Square(nn.Module):
    """In fp16 right for the samples, infinite for inputs eight times as large."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x * 1e-3


def test_an_overflow_on_one_draw_only_is_found(tmp_path):
    inputs = (torch.linspace(-60.0, 60.0, 64).reshape(4, 16),)
    error = refused(tmp_path, Square(), inputs, precision="fp16")
    assert "draw 'large'" in error.what
    assert "NaN, Inf" in error.what
    others = sdk.Gate(draws=("normal", "zeros", "min", "max"))
    sdk.export(Square(), tmp_path / "out.bundle", sample_inputs=inputs, precision="fp16", gate=others)


def test_a_fault_that_only_other_sizes_show_is_found(tmp_path, monkeypatch):
    """A batch that was baked in at the sample's size."""
    home = importlib.import_module("sdk_export.targets.onnx")
    build = home.build_model

    def build_and_bake(*args, **options):
        import onnx_ir as ir

        model = build(*args, **options)
        (x,) = model.graph.inputs
        first = ir.node(
            "Slice", [x, *(_constant(model, name, value) for name, value in (("a", 0), ("b", 4)))]
        )
        x.replace_all_uses_with(first.outputs[0])
        first.replace_input_with(0, x)
        model.graph.insert_before(model.graph[0], first)
        return model

    monkeypatch.setattr(home, "build_model", build_and_bake)
    model, inputs = net()
    dynamic = {"x": {0: ("batch", 1, 16)}}
    error = refused(tmp_path, model, inputs, dynamic_shapes=dynamic)
    assert "at the larger sizes" in error.what


def _constant(model, name, value):
    import onnx_ir as ir

    tensor = ir.Tensor(np.array([value], np.int64), name=name)
    constant = ir.Value(
        name=name, shape=tensor.shape, type=ir.TensorType(ir.DataType.INT64), const_value=tensor
    )
    model.graph.register_initializer(constant)
    return constant


def test_a_tolerance_of_the_callers_own_is_kept(tmp_path, monkeypatch):
    model, inputs = net()
    plant(monkeypatch, "onnx", scaled(model.head, 1.001))
    assert "(allowed: rel. RMSE ≤ 0.0001)" in refused(tmp_path, model, inputs).what
    bundle = sdk.export(
        model, tmp_path / "out.bundle", sample_inputs=inputs, gate=sdk.Gate(tolerance=Tolerance(1e-2))
    )
    record = bundle.quality(bundle.program())
    assert record is not None
    assert record.tolerance == Tolerance(1e-2)
    assert 1e-4 < max(item.rel_rmse for item in record.outputs) < 1e-2


def test_psnr_is_held_too(tmp_path, monkeypatch):
    model, inputs = net()
    plant(monkeypatch, "onnx", scaled(model.head, 1.001))
    gate = sdk.Gate(tolerance=Tolerance(1e-2, min_psnr_db=80.0))
    assert "PSNR ≥ 80 dB" in refused(tmp_path, model, inputs, gate=gate).what


def test_the_callers_metric_is_held_to_its_largest_drop(tmp_path, monkeypatch):
    model, inputs = net()
    labels = model(*inputs)["logits"].argmax(-1).numpy()

    def accuracy(run: Run) -> float:
        got = run({"x": inputs[0].numpy()})["logits"].argmax(-1)
        return float((got == labels).mean())

    plant(monkeypatch, "onnx", scaled(model.head, -1.0))
    lenient = Tolerance(10.0)
    error = refused(tmp_path, model, inputs, gate=sdk.Gate(tolerance=lenient, metric=accuracy, max_drop=0.25))
    assert "your metric" in error.what
    assert "may drop by 0.25" in error.why
    everything = sdk.Gate(tolerance=lenient, metric=accuracy, max_drop=1.0)
    sdk.export(model, tmp_path / "out.bundle", sample_inputs=inputs, gate=everything)


def test_a_metric_that_is_no_number_is_a_failure(tmp_path):
    model, inputs = net()
    calls = []

    def metric(run: Run) -> float:
        calls.append(run)
        return 1.0 if len(calls) == 1 else float("nan")

    refused(tmp_path, model, inputs, gate=sdk.Gate(metric=metric, max_drop=1e9))
    assert len(calls) == 2


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_files_that_no_engine_opens_are_refused(target, tmp_path, monkeypatch):
    model, inputs = net()

    def truncate(folder, files):
        path = folder / files[0]
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    plant(monkeypatch, target, truncate)
    with pytest.raises(sdk.SdkError):
        sdk.export(model, tmp_path / "out.bundle", sample_inputs=inputs, target=target)
    assert list(tmp_path.iterdir()) == []


def test_a_gate_that_is_off_is_told_everywhere(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from sdk.cli.app import app

    model, inputs = net()
    plant(monkeypatch, "onnx", scaled(model.head))  # what the gate would have found
    out = tmp_path / "out.bundle"
    bundle = sdk.export(model, out, sample_inputs=inputs, target=["onnx", "openvino"], gate=None)
    assert [record.verdict for record in bundle.manifest.quality] == ["unverified"] * 2
    assert str(bundle).count("UNVERIFIED") == 2
    assert str(sdk.inspect(out)).count("UNVERIFIED") == 2
    assert not sdk.verify(out).passed
    for command in ("inspect", "verify"):
        printed = CliRunner().invoke(app, [command, str(out)]).stdout
        assert "UNVERIFIED" in printed, command


def test_a_fault_that_hits_nothing_is_no_fault(tmp_path, monkeypatch):
    """`Weight` refuses to pass for a fault when it hit nothing."""
    model, inputs = net()
    plant(monkeypatch, "onnx", Weight(np.full((16, 16), 3.0, np.float32), np.zeros((16, 16), np.float32)))
    with pytest.raises(AssertionError, match="nothing was damaged"):
        sdk.export(model, tmp_path / "out.bundle", sample_inputs=inputs)
