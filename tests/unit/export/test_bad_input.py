"""Models and arguments that cannot be exported: each is one error of ours with what, why and fix."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sdk
from sdk_export.build import Order, build_bundle
from sdk_export.capture import capture
from sdk_export.decomposing import decomposed
from sdk_export.gate import Gate
from sdk_export.onnx_lowering import build_model
from sdk_runtimes.errors import (
    ArgumentError,
    LoweringError,
    SampleInputsError,
    SdkError,
    TraceError,
    WeightsError,
)

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)


def explained(error: SdkError) -> SdkError:
    assert error.what
    assert error.why
    assert error.fix
    assert all(text in str(error) for text in (error.what, error.why, error.fix))
    return error


def refused(kind: type[SdkError], model: object, inputs: object = X, **options: object) -> SdkError:
    with pytest.raises(SdkError) as caught:
        capture(model, sample_inputs=inputs, **options)
    assert type(caught.value) is kind
    return explained(caught.value)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the branch that depends on data
            return x + 1
        return x - 1


class Decomposing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]  # the op that no target has


class Listing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nonzero(x).float()  # the size that depends on data


class Looping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[: int(x[0, 0].item()) + 3] * 2  # the slice that depends on data


class Outer(nn.Module):
    """Puts the culprit two levels below, where only a module path finds it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.block = nn.Sequential(nn.ReLU(), inner)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.stem(x))


def line_of(comment: str) -> str:
    """ "file:line" of a comment in this file, as an error must tell it."""
    lines = Path(__file__).read_text().splitlines()
    return str(next(i for i, line in enumerate(lines, 1) if line.endswith(f"# {comment}")))


def test_a_data_dependent_branch_names_op_module_and_line():
    error = refused(TraceError, Outer(Branching()))
    assert "op " in error.what
    assert "module block.1" in error.what
    assert f"test_bad_input.py:{line_of('the branch that depends on data')}" in error.what
    assert "if x.sum() > 0" in error.what
    assert "torch.where" in error.fix


def test_a_data_dependent_slice_names_module_and_line():
    error = refused(TraceError, Outer(Looping()))
    assert "module block.1" in error.what
    assert f"test_bad_input.py:{line_of('the slice that depends on data')}" in error.what


def test_an_error_of_the_models_own_while_it_is_traced_is_told():
    class Refusing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                raise RuntimeError("not on my watch")
            return x

    error = refused(TraceError, Outer(Refusing()))
    assert "module block.1" in error.what
    assert "not on my watch" in error.why


def test_an_op_that_onnx_lacks_names_op_module_and_line():
    captured = capture(Outer(Decomposing()), sample_inputs=X)
    with pytest.raises(LoweringError) as caught:
        build_model(captured, "fp32")
    told = explained(caught.value).what
    assert "svd" in told
    assert "module block.1" in told
    assert "test_bad_input.py" in told
    assert f"line {line_of('the op that no target has')}" in told


def test_an_op_that_core_ml_lacks_names_op_module_and_line(tmp_path):
    pytest.importorskip("coremltools")
    from sdk_export.targets import coreml

    captured = capture(Outer(Decomposing()), sample_inputs=X)
    with pytest.raises(LoweringError) as caught:
        coreml.write(captured, "fp32", tmp_path)
    told = explained(caught.value).what
    assert "svd" in told
    assert "block.1" in told
    assert f"line {line_of('the op that no target has')}" in told
    assert list(tmp_path.iterdir()) == []


def test_an_op_that_no_target_has_leaves_nothing_behind(tmp_path):
    with pytest.raises(LoweringError):
        sdk.export(Outer(Decomposing()), tmp_path / "out.bundle", sample_inputs=X)
    assert list(tmp_path.iterdir()) == []


def test_a_data_dependent_shape_is_exact_in_onnx(tmp_path):
    bundle = sdk.export(Outer(Listing()), tmp_path / "out.bundle", sample_inputs=X)
    assert bundle.quality(bundle.program()).verdict == "passed"
    rows, columns = bundle.program().outputs[0].shape
    assert isinstance(rows, str)
    assert columns == 2


def test_a_data_dependent_shape_that_tensorrt_lacks_names_op_and_module(tmp_path):
    with pytest.raises(LoweringError) as caught:
        sdk.export(Outer(Listing()), tmp_path / "out.bundle", target="tensorrt", sample_inputs=X)
    assert list(tmp_path.iterdir()) == []
    told = str(explained(caught.value))
    assert "NonZero" in told
    assert "module 'block.1'" in told


@pytest.mark.parametrize("where", ["weight", "bias"])
def test_nan_in_a_parameter_is_refused_by_name(where):
    model = Outer(nn.Identity())
    with torch.no_grad():
        getattr(model.stem, where).view(-1)[1] = torch.nan
    assert f"stem.{where} (NaN)" in refused(WeightsError, model).what


def test_nan_in_a_buffer_is_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].running_mean[2] = torch.nan
    assert "1.running_mean (NaN)" in refused(WeightsError, model).what


def test_inf_in_a_parameter_is_refused_by_name():
    model = Outer(nn.Identity())
    with torch.no_grad():
        model.stem.weight[0, 0] = -torch.inf
    assert "stem.weight (Inf)" in refused(WeightsError, model).what


def test_many_bad_weights_are_counted():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    for parameter in model.parameters():
        nn.init.constant_(parameter, torch.nan)
    told = refused(WeightsError, model).what
    assert "0.weight (NaN)" in told
    assert "and 3 more" in told


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([0.0, 0.0, 0.0, -torch.inf]))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.mask).softmax(-1)


def test_a_mask_of_minus_infinity_in_a_buffer_is_no_bad_weight(tmp_path):
    bundle = sdk.export(Masked(), tmp_path / "out.bundle", sample_inputs=X)
    assert bundle.quality(bundle.program()).verdict == "passed"


def test_a_nan_in_an_exported_program_is_refused_too():
    model = nn.Linear(4, 4)
    nn.init.constant_(model.bias, torch.nan)
    assert "bias (NaN)" in refused(WeightsError, torch.export.export(model, (X,))).what


def test_weights_on_the_meta_device_are_refused_by_name():
    with torch.device("meta"):
        model = nn.Linear(4, 4)
    error = refused(WeightsError, model)
    assert "2 weights on the meta device" in error.what
    assert "'weight'" in error.what
    assert "load_state_dict" in error.fix


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x + self.seen


class Overwriting(nn.Module):
    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        state[:, :2].mul_(2)  # through a view
        return x + state


def test_a_buffer_that_is_written_is_refused_by_name():
    error = refused(TraceError, Outer(Counting()))
    assert "block.1.seen" in error.what
    assert "return the new state" in error.fix


def test_an_input_that_is_written_is_refused_by_name():
    error = refused(TraceError, Overwriting(), (X, X.clone()))
    assert "writes into state" in error.what


def test_what_an_exported_program_writes_is_refused_too():
    program = torch.export.export(Overwriting(), (X, X.clone()))
    assert "writes into state" in refused(TraceError, program).what
    functional = decomposed(torch.export.export(Counting(), (X,)))
    assert "seen" in refused(TraceError, functional).what


def test_work_on_a_copy_of_an_input_is_no_side_effect():
    class Working(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.clone()
            y[:, 0].add_(1)
            return y

    assert [spec.name for spec in capture(Working(), sample_inputs=X).outputs] == ["output"]


def test_complex_inputs_and_outputs_are_refused_by_name():
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"spectrum": torch.fft.fft(x)}

    class Magnitude(nn.Module):
        def forward(self, signal: Tensor) -> Tensor:
            return signal.abs()

    out = refused(TraceError, Spectrum())
    assert "'spectrum' is complex64" in out.what
    assert "two real tensors" in out.fix
    assert "'signal' is complex64" in refused(TraceError, Magnitude(), torch.complex(X, X)).what


@pytest.mark.parametrize("model", [None, 3, nn.Linear, {"state": 1}], ids=["None", "int", "class", "dict"])
def test_what_is_no_model_is_refused(model):
    assert type(model).__name__ in refused(ArgumentError, model).what


def test_sample_inputs_that_fail_in_eager_are_told_with_torchs_reason():
    error = refused(SampleInputsError, nn.Linear(3, 3))
    assert "Linear fails on its own sample inputs" in error.what
    assert "RuntimeError" in error.what
    assert "sample_inputs=" in error.fix


@pytest.mark.parametrize("model", [Branching(), nn.Linear(3, 3)], ids=["in the trace", "in eager"])
def test_training_mode_is_restored_after_a_failure(model):
    whole = nn.Sequential(model, nn.Dropout())
    whole.train()
    whole[1].eval()
    with pytest.raises(SdkError):
        capture(whole, sample_inputs=X)
    assert whole.training
    assert whole[0].training
    assert not whole[1].training


def test_training_mode_is_off_for_the_trace_and_restored_after_it():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    captured = capture(model, sample_inputs=X)
    once, twice = (captured.reference({"input": X.numpy()})["output"] for _ in range(2))
    assert (once == twice).all()
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


ILLEGAL = ["", ".hidden", "a/b", "..", "a b", "a\x00b", "-rf", "ü", "C:net", "x" * 101]


@pytest.mark.parametrize("name", ILLEGAL)
def test_names_that_cannot_be_file_names_are_refused(name, tmp_path):
    captured = capture(nn.Identity(), name="net", sample_inputs=X)
    object.__setattr__(captured, "name", name)
    order = Order(tmp_path / "out", ("onnx",), "fp32", Gate(), overwrite=False, model="test")
    with pytest.raises(ArgumentError, match="file name"):
        build_bundle(captured, order, lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_no_target_at_all_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="no target"):
        sdk.export(nn.Identity(), tmp_path / "out", target=[], sample_inputs=X)
    assert list(tmp_path.iterdir()) == []
