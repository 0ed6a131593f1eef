"""Networks to packages, and back through the evaluator."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from networks import CASES
from sdk_export.captured import Captured
from sdk_export.mil.package import read_package
from sdk_export.targets import coreml
from sdk_runtimes.errors import LoweringError, UnknownChoiceError
from sdk_runtimes.specs import ProgramSpec
from unit.export.captures import capture

torch.set_num_threads(1)

FP32, FP16 = 1e-5, 2e-2
NETWORKS = ["cnn", "dit", "linear_attention", "kv_cache", "unet", "lstm", "text_bool_mask"]
SLOW = [
    "vit",
    "gru",
    "rope",
    "integers_and_bools",
    "atconv",
    "cnn_batch",
    "gru_batch",
    "unet_dynamic",
    "var",
    "selective_scan",
    "text_int_mask",
]


def written(captured: Captured, precision: str, folder: Path) -> tuple[Path, ProgramSpec]:
    files = coreml.write(captured, precision, folder)
    spec = ProgramSpec(
        captured.name, "coreml", precision, captured.inputs, captured.outputs, files, captured.symbols
    )
    return folder / files[0], spec


def rel_rmse(got: np.ndarray, truth: np.ndarray) -> float:
    if truth.dtype.kind in "biu":
        return float(np.mean(got != truth)) if truth.size else 0.0
    error = np.sqrt(np.mean(np.square(got - truth, dtype=np.float64)))
    return float(error / np.sqrt(np.mean(np.square(truth, dtype=np.float64)))) if truth.size else 0.0


def worst(captured: Captured, entry: Path, spec: ProgramSpec, feeds: dict[str, np.ndarray]) -> float:
    got, truth = coreml.replay(entry, spec, feeds), captured.reference(feeds)
    for name, array in truth.items():
        assert (got[name].shape, got[name].dtype) == (array.shape, array.dtype)
    return max(rel_rmse(got[name], truth[name]) for name in truth)


def check_network(name: str, precision: str, bound: float, folder: Path) -> None:
    case = CASES[name]
    captured = capture(
        case.build(),
        case.sample_inputs,
        kwargs=case.sample_kwargs,
        dynamic_shapes=case.dynamic_shapes,
        name=name,
    )
    entry, spec = written(captured, precision, folder)
    for sizes in (case.sample, *case.sizes):
        inputs = case.inputs(**sizes)
        flat, _ = pytree.tree_flatten((inputs.args, dict(inputs.kwargs)))
        feeds = {item.name: value.numpy() for item, value in zip(captured.inputs, flat, strict=True)}
        assert worst(captured, entry, spec, feeds) <= bound, sizes


@pytest.mark.parametrize("name", NETWORKS)
def test_the_saved_package_computes_the_network(name, tmp_path):
    check_network(name, "fp32", FP32, tmp_path)


@pytest.mark.parametrize("name", ["cnn", "kv_cache", "unet"])
def test_the_saved_package_computes_the_network_in_fp16(name, tmp_path):
    check_network(name, "fp16", FP16, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", [*SLOW, *NETWORKS])
def test_every_network_in_both_precisions(name, precision, tmp_path):
    check_network(name, precision, FP32 if precision == "fp32" else FP16, tmp_path)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


def small(**options) -> Captured:
    torch.manual_seed(0)
    return capture(Small().eval(), (torch.randn(2, 3, 8, 8),), **options)


def test_the_manifest_comes_first_and_every_file_is_listed(tmp_path):
    files = coreml.write(small(), "fp32", tmp_path)
    assert files[0] == "net.mlpackage/Manifest.json"
    assert set(files) == {
        "net.mlpackage/Manifest.json",
        "net.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "net.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
    }
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert there == set(files)


@pytest.mark.parametrize("precision", coreml.PRECISIONS)
def test_the_same_network_gives_the_same_bytes(precision, tmp_path):
    digests = []
    for run in ("one", "two"):
        files = coreml.write(small(), precision, tmp_path / run)
        digests.append([hashlib.sha256((tmp_path / run / name).read_bytes()).hexdigest() for name in files])
    assert digests[0] == digests[1]


def test_coremltools_itself_opens_the_package(tmp_path):
    from sdk_export.mil.quiet import quiet_coremltools

    entry, _ = written(small(), "fp32", tmp_path)
    with quiet_coremltools() as coremltools:
        model = coremltools.models.MLModel(str(entry.parent), skip_model_load=True)
        assert [item.name for item in model.get_spec().description.input] == ["x"]


def test_nothing_is_printed(tmp_path, capfd, caplog):
    coreml.write(small(), "fp32", tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("coremltools")]


def test_odd_names_are_mapped_and_kept_in_the_package(tmp_path):
    captured = small(names=("x.mask",), outputs=("logits/0",))
    entry, spec = written(captured, "fp32", tmp_path)
    program = read_package(entry)
    assert set(program.function("main").inputs) == {"x_x2e_mask"}
    assert json.loads(program.metadata["edge-sdk.names"]) == {
        "x_x2e_mask": "x.mask",
        "logits_x2f_0": "logits/0",
    }
    assert worst(captured, entry, spec, dict(captured.samples)) <= FP32


class Loop(nn.Module):
    def forward(self, cache, relu):
        return cache + relu.relu(), relu


@pytest.mark.parametrize("names", [("cache", "relu"), ("add", "output"), ("relu", "add")])
def test_names_of_operations_inputs_and_outputs_do_not_meet(names, tmp_path):
    captured = capture(Loop(), (torch.randn(2, 3), torch.randn(2, 3)), names=("cache", "relu"), outputs=names)
    entry, spec = written(captured, "fp32", tmp_path)
    assert worst(captured, entry, spec, dict(captured.samples)) <= FP32


class Same(nn.Module):
    def forward(self, x, keep):
        y = x * 2
        return x, keep, y, y, nn.functional.dropout(x, training=False)


@pytest.mark.parametrize("precision", coreml.PRECISIONS)
def test_inputs_given_back_and_results_given_twice(precision, tmp_path):
    captured = capture(Same(), (torch.randn(3), torch.tensor([True, False])))
    entry, spec = written(captured, precision, tmp_path)
    assert worst(captured, entry, spec, dict(captured.samples)) <= 1e-3


class Carried(nn.Module):
    def forward(self, wide, byte, flag, half, scalar):
        return wide + 1, byte, flag & (wide > 2), half * 2, scalar * 2, wide.double() * scalar


def test_every_dtype_crosses_the_border(tmp_path):
    arguments = (
        torch.tensor([1, 2, 3]),
        torch.tensor([250, 1, 2], dtype=torch.uint8),
        torch.tensor([True, False, True]),
        torch.randn(3).half(),
        torch.tensor(2.5),
    )
    captured = capture(Carried(), arguments)
    entry, spec = written(captured, "fp32", tmp_path)
    assert worst(captured, entry, spec, dict(captured.samples)) <= 1e-6


def test_fp16_keeps_fp32_at_the_border_and_computes_in_fp16(tmp_path):
    entry, _ = written(small(), "fp16", tmp_path)
    function = read_package(entry).function("main")
    assert function.inputs["x"].dtype.name == "fp32"
    convs = [op for op in function.block.operations if op.type == "conv"]
    assert [kind.dtype.name for op in convs for _, kind in op.outputs] == ["fp16"]


def test_a_fault_in_the_weight_file_is_seen(tmp_path):
    captured = small()
    entry, spec = written(captured, "fp32", tmp_path)
    weights = entry.parent / "Data/com.apple.CoreML/weights/weight.bin"
    raw = bytearray(weights.read_bytes())
    raw[128 + 4 * 7 + 3] ^= 0x80  # the sign of one weight of the first convolution
    weights.write_bytes(raw)
    assert worst(captured, entry, spec, dict(captured.samples)) > 1e-3


def test_an_overflow_in_fp16_is_seen(tmp_path):
    class Loud(nn.Module):
        def forward(self, x):
            return (x * x).mean(-1)

    captured = capture(Loud(), (torch.full((2, 8), 300.0),))
    for precision, finite in (("fp32", True), ("fp16", False)):
        entry, spec = written(captured, precision, tmp_path / precision)
        got = coreml.replay(entry, spec, captured.samples)["output"]
        assert np.isfinite(got).all() == finite


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x):
        self.total.add_(x)
        return self.total * 2


def test_a_state_is_read_written_and_handed_back(tmp_path):
    captured = capture(Counter(), (torch.ones(3),))
    entry, spec = written(captured, "fp16", tmp_path)
    first = coreml.replay(entry, spec, captured.samples)
    np.testing.assert_allclose(first["output"], 2)
    states = {name: array for name, array in first.items() if name != "output"}
    assert len(states) == 1
    second = coreml.replay(entry, spec, captured.samples, states=states)
    np.testing.assert_allclose(second["output"], 4)


def test_a_state_cannot_be_fp32(tmp_path):
    with pytest.raises(LoweringError, match=r"'total' in fp32[\s\S]*fp16"):
        coreml.write(capture(Counter(), (torch.ones(3),)), "fp32", tmp_path)


class Inner(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(nn.Linear(4, 4), Inner())

    def forward(self, x):
        return self.stage(x)


def test_an_unknown_operation_is_named_with_module_and_line(tmp_path):
    with pytest.raises(LoweringError) as refusal:
        coreml.write(capture(Outer(), (torch.randn(3, 4),)), "fp32", tmp_path)
    message = str(refusal.value)
    assert "svd" in message
    assert "'stage.1'" in message
    assert "test_coreml.py" in message
    assert "return torch.linalg.svdvals(x)" in message
    assert "fix:" in message


def test_a_failure_inside_coremltools_names_the_operation(tmp_path):
    class Spread(nn.Module):
        def forward(self, x):
            return nn.functional.max_pool2d(x, 2, 1, dilation=2)

    with pytest.raises(LoweringError, match=r"aten::max_pool2d[\s\S]*dilation"):
        coreml.write(capture(Spread(), (torch.randn(1, 2, 8, 8),)), "fp32", tmp_path)


def test_a_silent_error_without_a_fix_is_refused(tmp_path):
    class Smooth(nn.Module):
        def forward(self, x):
            return nn.functional.interpolate(x, size=(3, 3), mode="bilinear", antialias=True)

    with pytest.raises(LoweringError, match="ignores `antialias`"):
        coreml.write(capture(Smooth(), (torch.randn(1, 2, 8, 8),)), "fp32", tmp_path)


@pytest.mark.parametrize(
    ("precision", "options", "known"),
    [("int8", {}, "fp16"), ("fp32", {"minimum_target": "iOS12"}, "iOS18")],
)
def test_unknown_choices_list_the_known_ones(precision, options, known, tmp_path):
    with pytest.raises(UnknownChoiceError, match=known):
        coreml.write(small(), precision, tmp_path, **options)


def test_an_older_system_can_be_the_minimum(tmp_path):
    captured = small()
    files = coreml.write(captured, "fp32", tmp_path, minimum_target="iOS16")
    assert read_package(tmp_path / files[0]).function("main").opset == "CoreML6"
