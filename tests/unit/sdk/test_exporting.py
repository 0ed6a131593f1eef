"""The verb `export`: what is refused before any work, and what every front door leads to."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sdk
from sdk_export.capture import capture
from sdk_runtimes import require
from sdk_runtimes.errors import (
    ArgumentError,
    BundleError,
    MissingExtraError,
    OutputExistsError,
    SampleInputsError,
    SdkError,
    UnknownChoiceError,
)

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x)


@pytest.fixture(autouse=True)
def private(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    torch.manual_seed(0)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test where the model is looked at."""

    def work(*_args: object, **_options: object) -> None:
        raise AssertionError("the model was captured before the arguments were checked")

    monkeypatch.setattr("sdk_export.capture.capture", work)


def explained(error: SdkError) -> SdkError:
    assert error.what
    assert error.why
    assert error.fix
    return error


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({"target": "tflite"}, ("onnx", "openvino", "coreml", "tensorrt")),
        ({"target": ["onnx", "tflite"]}, ("onnx", "openvino", "coreml", "tensorrt")),
        ({"precision": "int3"}, ("fp32", "fp16", "bf16")),
        ({"target": "coreml", "precision": "bf16"}, ("fp32", "fp16")),
        ({"target": ["openvino", "onnx"], "precision": "bf16"}, ("fp32", "fp16")),
    ],
)
def test_unknown_choices_list_the_known_ones_before_any_work(tmp_path, options, known):
    with pytest.raises(UnknownChoiceError) as caught:
        sdk.export(Tiny(), tmp_path / "out", sample_inputs=X, **options)
    explained(caught.value)
    assert caught.value.known == known
    assert all(f"'{name}'" in str(caught.value) for name in known)
    assert isinstance(caught.value, ValueError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_out_that_exists_is_refused_before_any_work(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    else:
        out.write_text("years of work")
    with pytest.raises(OutputExistsError) as caught:
        sdk.export(Tiny(), out, sample_inputs=X)
    explained(caught.value)
    assert isinstance(caught.value, FileExistsError)
    kept = out / "thesis.tex" if kind == "folder" else out
    assert kept.read_text() == "years of work"


@pytest.mark.usefixtures("no_work")
def test_overwrite_replaces_bundles_only(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError):
        sdk.export(Tiny(), tmp_path / "out", sample_inputs=X, overwrite=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def absent(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    there = require.is_installed
    monkeypatch.setattr(require, "is_installed", lambda module: module != package and there(module))


@pytest.mark.usefixtures("no_work")
def test_without_torch_the_pip_line_is_named(tmp_path, monkeypatch):
    absent(monkeypatch, "torch")
    with pytest.raises(MissingExtraError) as caught:
        sdk.export(Tiny(), tmp_path / "out", sample_inputs=X)
    assert caught.value.fix == "pip install 'edge-sdk[export]'"
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    ("target", "package", "extra"),
    [
        ("onnx", "onnxscript", "export"),
        ("openvino", "openvino", "openvino"),
        ("coreml", "coremltools", "coreml"),
        ("tensorrt", "onnxscript", "export"),
    ],
)
def test_a_missing_extra_names_the_pip_line(tmp_path, monkeypatch, target, package, extra):
    absent(monkeypatch, package)
    with pytest.raises(MissingExtraError) as caught:
        sdk.export(Tiny(), tmp_path / "out", target=target, sample_inputs=X)
    explained(caught.value)
    assert f"'{package}' is not installed" in caught.value.what
    assert f"target '{target}'" in caught.value.what
    assert caught.value.fix == f"pip install 'edge-sdk[{extra}]'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["net.h5", "net", "net.pth"])
def test_an_unknown_kind_of_file_lists_the_known_ones(tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(UnknownChoiceError) as caught:
        sdk.export(tmp_path / name, tmp_path / "out")
    assert caught.value.known == (".onnx", ".pt2")


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_a_file_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match="there is no file"):
        sdk.export(str(tmp_path / name), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_sample_inputs_the_way_to_pass_them_is_shown(tmp_path):
    with pytest.raises(SampleInputsError, match="sample_inputs=") as caught:
        sdk.export(Tiny(), tmp_path / "out")
    explained(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [sdk.load, sdk.inspect, sdk.verify])
@pytest.mark.parametrize("kind", ["missing", "empty folder", "file"])
def test_a_path_that_is_no_bundle(tmp_path, verb, kind):
    path = tmp_path / "net.bundle"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("{}")
    with pytest.raises(BundleError) as caught:
        verb(path)
    assert "net.bundle" in caught.value.what
    assert caught.value.fix or caught.value.why


class Ready(Tiny):
    def sample_inputs(self) -> tuple[Tensor, ...]:
        return (X,)


def test_nothing_but_a_model_makes_a_bundle_named_after_its_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = []
    bundle = sdk.export(Ready(), progress=lambda *step: stages.append(step), licence="MIT")
    assert [path.name for path in tmp_path.iterdir()] == ["Ready.bundle"]
    assert bundle.path == tmp_path / "Ready.bundle"
    assert bundle.manifest.licence == "MIT"
    assert bundle.manifest.provenance.model.endswith("Ready")
    assert [stage for stage, _, _ in stages] == ["eager reference", "onnx", "sealing", "done"]
    assert [done for _, done, _ in stages] == sorted(done for _, done, _ in stages)
    assert stages[-1][1] == stages[-1][2]
    with pytest.raises(OutputExistsError):
        sdk.export(Ready())
    again = sdk.export(Ready(), overwrite=True, name="other", out="Ready.bundle")
    assert again.manifest.name == "other"


def test_hugging_faces_dummy_inputs_and_numpy_samples(tmp_path):
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4)
            self.dummy_inputs = {"input_ids": torch.tensor([[7, 6, 0]])}

        def forward(self, input_ids=None, attention_mask=None) -> Tensor:
            return self.table(input_ids)

    model = Text().eval()
    bundle = sdk.export(model, tmp_path / "out")
    assert [str(spec) for spec in bundle.program().inputs] == ["input_ids: int64[1, 3]"]
    captured = capture(model, sample_inputs={"input_ids": np.array([[1, 2, 3]])})
    assert captured.samples["input_ids"].tolist() == [[1, 2, 3]]


def test_an_exported_program_is_a_source(tmp_path):
    model = Tiny().eval()
    bundle = sdk.export(torch.export.export(model, (X,)), tmp_path / "out", name="tiny")
    assert bundle.program().name == "tiny"
    with sdk.load(tmp_path / "out") as session:
        got = session.run({"x": X.numpy()})["output"]
    np.testing.assert_allclose(got, model(X).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [None, (X, X * 2, X * 3), {"first": X, "gate": X * 3, "second": X * 2}])
def test_an_exported_program_keeps_its_keywords(given):
    class Gated(nn.Module):
        def forward(self, first: Tensor, second: Tensor, *, gate: Tensor) -> Tensor:
            return first - second * gate

    program = torch.export.export(Gated(), (X,), {"second": X * 2, "gate": X * 3})
    captured = capture(program, sample_inputs=given)
    assert [spec.name for spec in captured.inputs] == ["first", "second", "gate"]
    feeds = {"first": X.numpy(), "second": X.numpy() + 1, "gate": X.numpy() - 2}
    truth = captured.reference(feeds)["output"]
    np.testing.assert_allclose(truth, (X - (X + 1) * (X - 2)).numpy(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_exported_from_a_copy_in_float32(dtype):
    model = Tiny().to(dtype).train()
    before = copy.deepcopy(model.state_dict())
    captured = capture(model, sample_inputs=X.to(dtype))
    assert {spec.dtype for spec in (*captured.inputs, *captured.outputs)} == {"float32"}
    truth = captured.reference({"x": X.numpy()})["output"]
    weight, bias = (before[f"mix.{name}"].float() for name in ("weight", "bias"))
    np.testing.assert_allclose(truth, (X @ weight.T + bias).numpy(), rtol=1e-5, atol=1e-6)
    assert model.training
    assert all(value.dtype == dtype for value in model.state_dict().values())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_float32_model_is_not_copied():
    model = Tiny()
    assert capture(model, sample_inputs=X).reference.module is model


class Tied(nn.Module):
    """A language model whose head is its embedding: 64 KiB once, 128 KiB twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(256, 64)
        self.head = nn.Linear(64, 256, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids))


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_tied_weights_are_stored_once(tmp_path, target):
    bundle = sdk.export(Tied(), tmp_path / "out", target=target, sample_inputs=torch.arange(6))
    assert 256 * 64 * 4 <= bundle.program().weights_bytes < 1.5 * 256 * 64 * 4


def test_nested_dataclasses_pass_through_the_whole_way(tmp_path):
    @dataclasses.dataclass
    class Batch:
        image: Tensor
        scale: Tensor

    class Model(nn.Module):
        def forward(self, batch: Batch, *, shift: Tensor) -> Batch:
            return Batch(batch.image * batch.scale + shift, batch.scale)

    sdk.export(Model(), tmp_path / "out", sample_inputs=(Batch(X, X + 2),), sample_kwargs={"shift": X})
    with sdk.load(tmp_path / "out") as session:
        got = session.run({name: X.numpy() for name in ("batch.image", "batch.scale", "shift")})
    assert list(got) == ["image", "scale"]
    np.testing.assert_allclose(got["image"], (X * X + X).numpy(), rtol=1e-6)


def test_the_current_folder_is_named_when_out_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SdkError) as caught:
        sdk.export(Tiny(), Path(tmp_path / "file" / "out"), sample_inputs=X)
    assert caught.value.why
