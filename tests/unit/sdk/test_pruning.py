"""The verb `prune`: from a trained network to a smaller one, and from there to a bundle that runs."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sdk
import sdk_pruning
from samples.digits.networks import digits_vit
from sdk.pruning_latency import latency_meter
from sdk_pruning.prune import prune as stage_prune
from sdk_runtimes import require
from sdk_runtimes.errors import (
    ArgumentError,
    DeviceError,
    MissingExtraError,
    PruningError,
    SampleInputsError,
    SdkError,
    UnknownChoiceError,
)

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A stem, a residual block and a classifier; only the block's inside and the stem can shrink."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.outer = nn.Conv2d(2 * width, width, 1)
        self.head = nn.Linear(width, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem(image)).relu()
        x = x + self.outer(self.inner(x).relu())
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


class WithSamples(Net):
    def sample_inputs(self) -> tuple[Tensor, ...]:
        return (IMAGE,)


class Shifted(Net):
    """Takes a keyword argument beside the image."""

    def forward(self, image: Tensor, *, shift: Tensor) -> Tensor:  # type: ignore[override]  # on purpose
        return super().forward(image + shift)


def build(kind: type[Net] = Net, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    net = kind()
    with torch.no_grad():  # statistics as after training
        net.train()
        shift = {"shift": torch.zeros(1, 3, 1, 1)} if kind is Shifted else {}
        for batch in batches(3):
            net(batch, **shift)
    return net.eval()


def batches(count: int = 4, size: int = 16) -> list[Tensor]:
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, 8, 8, generator=draws) for _ in range(count)]


def prune(model: nn.Module, data: object = None, **arguments: object) -> sdk_pruning.PruneResult:
    given = {"sample_inputs": (IMAGE,), "measure": False, "round_to": 1} | arguments
    goals = {"ratio", "target_flops", "target_latency_ms"}
    if not goals & set(arguments):
        given["ratio"] = 0.5
    return sdk.prune(model, batches() if data is None else data, **given)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture(scope="module")
def halved() -> sdk_pruning.PruneResult:
    return prune(build())


def test_the_result_exports_through_the_gate_and_runs(halved, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(tmp_path / "cache"))
    bundle = sdk.export(halved.model, tmp_path / "net.bundle", sample_inputs=(IMAGE,))
    assert bundle.quality("Net.onnx").verdict == "passed"
    with sdk.load(bundle, threads=1) as session, torch.no_grad():
        scores = session.run({"image": IMAGE.numpy()})["output"]
        np.testing.assert_allclose(scores, halved.model(IMAGE).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["heads", "dims"])
def test_attention_shrinks_and_exports_through_the_gate(attention, tmp_path):
    images = torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = prune(digits_vit(16, heads=2, depth=1), images, sample_inputs=images[:1], attention=attention)
    assert {group.role for group in result.report.groups} == {"channels", attention}
    bundle = sdk.export(result.model, tmp_path / "vit.bundle", sample_inputs=images[:1])
    assert bundle.quality("DigitsVit.onnx").verdict == "passed"


def test_half_of_every_group_goes_and_the_report_counts_it(halved):
    assert halved.model.stem.weight.shape == (8, 3, 3, 3)
    assert halved.model.inner.weight.shape == (16, 8, 3, 3)
    assert halved.model.head.weight.shape == (5, 8)
    report = halved.report
    # two a multiply-add at one 8 x 8 image: stem, inner, outer, head
    dense = 2 * (64 * (3 * 9 * 16 + 16 * 9 * 32 + 32 * 16) + 16 * 5)
    pruned = 2 * (64 * (3 * 9 * 8 + 8 * 9 * 16 + 16 * 8) + 8 * 5)
    assert report.flops == (dense, pruned)
    assert report.parameters == tuple(sum(p.numel() for p in m.parameters()) for m in (Net(), halved.model))
    assert 0 < report.relative_error < 1
    assert 0 <= report.agreement <= 1
    assert (report.held_out, report.samples) == (16, 64)
    assert report.latency_ms is None
    for words in ("FLOPs", "output error", "same top-1", "stem", "inner", "head"):
        assert words in str(report)


def test_the_model_that_was_given_stays_as_it_was():
    net = build()
    net.stem.requires_grad_(requires_grad=False)
    net.train()
    net.norm.eval()
    before = state(net)
    flags = {name: module.training for name, module in net.named_modules()}
    smaller = prune(net).model
    assert_same_state(before, state(net))
    assert {name: module.training for name, module in net.named_modules()} == flags
    assert not hasattr(net, "pruning_plan")
    assert {name: module.training for name, module in smaller.named_modules()} == flags
    assert {name for name, p in smaller.named_parameters() if not p.requires_grad} == {"stem.weight"}


def test_dtypes_come_back():
    net = build().half()
    smaller = prune(net).model
    assert {p.dtype for p in smaller.parameters()} == {torch.float16}


def test_equal_arguments_give_equal_weights(halved):
    assert_same_state(state(halved.model), state(prune(build()).model))


def test_in_place_gives_the_same_network(halved):
    net = build()
    result = sdk.prune_(net, batches(), sample_inputs=(IMAGE,), ratio=0.5, measure=False, round_to=1)
    assert result.model is net
    assert_same_state(state(net), state(halved.model))
    assert result.plan == halved.plan


def test_in_place_leaves_the_model_alone_where_it_fails():
    net = build()
    before = state(net)
    with pytest.raises(PruningError):
        sdk.prune_(net, [], sample_inputs=(IMAGE,), ratio=0.5, measure=False)
    assert_same_state(before, state(net))
    with pytest.raises(TypeError, match="ration"):
        sdk.prune_(net, batches(), ration=0.5)


def test_the_plan_survives_json_and_cuts_fresh_weights_alike(halved, tmp_path):
    plan = sdk_pruning.Plan.from_json(halved.plan.to_json())
    assert plan == halved.plan
    halved.plan.save(tmp_path / "plan.json")
    json.loads((tmp_path / "plan.json").read_text())
    fresh = build(seed=7)
    before = state(fresh)
    cut = sdk_pruning.apply_plan(fresh, tmp_path / "plan.json")
    assert_same_state(before, state(fresh))
    assert {n: t.shape for n, t in state(cut).items()} == {n: t.shape for n, t in state(halved.model).items()}
    kept = list(halved.plan.groups["inner"].kept)
    into = list(halved.plan.groups["stem"].kept)
    assert torch.equal(cut.inner.weight, fresh.inner.weight[kept][:, into])


def test_a_saved_result_comes_back(halved, tmp_path):
    halved.save(tmp_path / "pruned")
    again = sdk_pruning.load_pruned(build(seed=7), tmp_path / "pruned")
    assert_same_state(state(halved.model), state(again.eval()))
    with torch.no_grad():
        assert torch.equal(again(IMAGE), halved.model(IMAGE))
    assert (tmp_path / "pruned/report.txt").read_text() == f"{halved.report}\n"


def test_a_saved_result_that_was_damaged_is_refused(halved, tmp_path):
    halved.save(tmp_path / "pruned")
    weights = tmp_path / "pruned/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PruningError, match="cannot be loaded"):
        sdk_pruning.load_pruned(build(), tmp_path / "pruned")
    (tmp_path / "pruned/plan.json").write_text('{"version": 99}')
    with pytest.raises(PruningError, match="version 99"):
        sdk_pruning.load_pruned(build(), tmp_path / "pruned")
    with pytest.raises(PruningError, match="no pruning plan"):
        sdk_pruning.load_pruned(build(), tmp_path / "nowhere")


def test_a_plan_for_another_network_is_refused(halved):
    with pytest.raises(PruningError, match="does not fit"):
        sdk_pruning.apply_plan(Net(12), halved.plan)
    with pytest.raises(PruningError, match="pruned already"):
        sdk_pruning.apply_plan(halved.model, halved.plan)


def test_a_share_of_the_flops_is_met_from_below():
    report = prune(build(), target_flops=0.4).report
    assert report.flops_left <= 0.4
    assert report.flops_left > 0.3


def test_what_is_protected_stays():
    model = prune(build(), protect=("stem",)).model
    assert model.stem.weight.shape[0] == 16
    assert model.inner.weight.shape == (16, 16, 3, 3)


@pytest.mark.parametrize(
    "data",
    [
        lambda: torch.cat(batches()),
        lambda: np.concatenate([batch.numpy() for batch in batches()]),
        lambda: (batch for batch in batches()),
        lambda: batches,
        lambda: [(batch, torch.zeros(len(batch))) for batch in batches()],
        lambda: [{"image": batch} for batch in batches()],
    ],
    ids=["tensor", "array", "generator", "function", "labelled", "dicts"],
)
def test_calibration_data_in_any_form_give_the_same_network(data, halved):
    found = prune(build(), data()).model
    assert_same_state(state(halved.model), state(found))


def test_bare_calibration_data_fit_sample_inputs_by_name(halved):
    found = prune(build(), sample_inputs={"image": IMAGE}).model
    assert_same_state(state(halved.model), state(found))


def test_a_generator_without_end_is_read_as_far_as_needed():
    def endless():
        draws = torch.Generator().manual_seed(0)
        while True:
            yield torch.randn(8, 3, 8, 8, generator=draws)

    assert prune(build(), endless(), samples=40).report.samples == 40


def test_sample_inputs_may_come_from_the_model():
    assert prune(build(WithSamples), sample_inputs=None).report.flops_left < 0.5
    with pytest.raises(SampleInputsError, match="no sample inputs"):
        prune(build(), sample_inputs=None)


def test_sample_inputs_that_do_not_fit_forward_are_refused():
    with pytest.raises(SampleInputsError, match="the sample inputs do not fit"):
        prune(build(), sample_inputs={"picture": IMAGE})


def test_keyword_arguments_reach_the_network_and_the_stopwatch():
    shift = {"shift": torch.full((1, 3, 1, 1), 0.1)}
    report = prune(build(Shifted), sample_kwargs=shift, measure=True, threads=1).report
    assert report.latency_ms is not None


BAD = {
    "no goal": ({"ratio": None}, ArgumentError, "exactly one"),
    "two goals": ({"ratio": 0.5, "target_flops": 0.5}, ArgumentError, "exactly one"),
    "ratio of one": ({"ratio": 1.0}, ArgumentError, "ratio is 1.0"),
    "ratio below zero": ({"ratio": -0.1}, ArgumentError, "ratio is -0.1"),
    "ratio NaN": ({"ratio": float("nan")}, ArgumentError, "ratio is nan"),
    "flops of zero": ({"target_flops": 0.0}, ArgumentError, "target_flops is 0.0"),
    "latency of zero": ({"target_latency_ms": 0.0, "measure": None}, ArgumentError, "target_latency_ms is 0"),
    "unmeasured latency": ({"target_latency_ms": 1.0}, ArgumentError, "measure=False"),
    "selector": ({"selector": "best"}, UnknownChoiceError, "'obs'"),
    "compensation": ({"compensation": "hope"}, UnknownChoiceError, "'ls'"),
    "target": ({"target": "tflite"}, UnknownChoiceError, "'openvino'"),
    "device": ({"device": "abacus"}, UnknownChoiceError, "'onnxruntime:cpu'"),
    "threads": ({"threads": 0}, ArgumentError, "threads is 0"),
    "samples": ({"samples": 0}, ArgumentError, "samples is 0"),
    "round_to": ({"round_to": 0}, ArgumentError, "round_to is 0"),
    "attention": ({"attention": "some"}, SdkError, "'heads'"),
    "protects nothing": ({"protect": ("nowhere",)}, ArgumentError, "nowhere"),
    "protects everything": ({"protect": ("*",)}, PruningError, "nothing in Net can be pruned"),
    "flops out of reach": ({"target_flops": 0.0001}, PruningError, "remain"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_and_the_model_left_alone(arguments, error, message):
    net = build()
    before = state(net)
    with pytest.raises(error, match=message):
        prune(net, **arguments)
    assert_same_state(before, state(net))


BAD_DATA = {
    "none": ([], "no samples"),
    "no batch": (torch.zeros(0, 3, 8, 8), "no samples"),
    "NaN": ([torch.full((4, 3, 8, 8), float("nan"))], "NaN"),
    "infinity": ([torch.full((4, 3, 8, 8), float("inf"))], "infinity"),
    "another shape": ([torch.zeros(4, 3, 9, 9)], "shape"),
    "no data": (7, "type int"),
}


@pytest.mark.parametrize(("data", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_unfit_calibration_data_are_refused(data, message):
    with pytest.raises(PruningError, match=message):
        prune(build(), data)


def test_few_samples_are_said():
    warnings = " ".join(prune(build(), [batches()[0][:1]]).report.warnings)
    assert "single calibration sample" in warnings


def test_what_was_pruned_is_not_pruned_again(halved):
    with pytest.raises(PruningError, match="pruned already"):
        prune(halved.model)


def test_what_is_no_module_is_refused():
    with pytest.raises(ArgumentError, match="model is a str"):
        prune("net.onnx")


def test_without_torch_the_message_names_the_pip_line(monkeypatch):
    monkeypatch.setattr(require, "is_installed", lambda _module: False)
    with pytest.raises(MissingExtraError, match="pip install"):
        prune(nn.Linear(1, 1))


def test_by_default_latency_is_measured_where_the_target_runs():
    report = prune(build(), measure=None, threads=1).report
    assert report.target == "onnx on onnxruntime:cpu, threads=1"
    assert min(report.latency_ms) > 0
    assert report.speedup == pytest.approx(report.latency_ms[0] / report.latency_ms[1])
    assert "onnx on onnxruntime:cpu" in str(report)


def test_without_the_engine_it_prunes_and_says_that_it_did_not_measure(monkeypatch, halved):
    monkeypatch.setattr(require, "is_installed", lambda module: module != "openvino")
    result = prune(build(), measure=None, target="openvino")
    assert result.report.latency_ms is None
    (note,) = [text for text in result.report.warnings if "calibration" not in text]
    assert "latency was not measured: 'openvino' is not installed" in note
    assert note in str(result.report)
    assert_same_state(state(halved.model), state(result.model))
    with pytest.raises(MissingExtraError, match="edge-sdk"):
        prune(build(), measure=True, target="openvino")
    with pytest.raises(MissingExtraError, match="edge-sdk"):
        prune(build(), target_latency_ms=1.0, measure=None, target="openvino")


def test_a_device_that_is_not_here_is_refused_only_where_it_matters():
    device = "openvino:cpu"  # does not open the target
    assert "tensorrt" in " ".join(
        prune(build(), measure=None, target="tensorrt", device=device).report.warnings
    )
    with pytest.raises(DeviceError, match="tensorrt"):
        prune(build(), measure=True, target="tensorrt", device=device)


def test_what_cannot_be_exported_is_pruned_without_a_latency(monkeypatch):
    def refuse(*_arguments, **_options):
        raise SdkError("this network cannot be lowered")

    monkeypatch.setattr("sdk.pruning_latency.latency_meter", refuse)
    report = prune(build(), measure=None).report
    assert report.latency_ms is None
    assert "latency was not measured: this network cannot be lowered" in report.warnings
    with pytest.raises(SdkError, match="cannot be lowered"):
        prune(build(), measure=True)


def test_a_latency_out_of_reach_names_the_best_that_is_not():
    with pytest.raises(PruningError, match=r"\d.* ms"):
        prune(build(), target_latency_ms=1e-6, measure=None, threads=1)


def test_the_meter_is_what_the_stage_asks_for():
    with latency_meter(build(), IMAGE, threads=1, runs=2) as meter:
        assert meter.label == "onnx on onnxruntime:cpu, threads=1"


def test_the_verb_offers_all_that_the_stage_does():
    import inspect

    ours, theirs = (set(inspect.signature(verb).parameters) for verb in (sdk.prune, stage_prune))
    assert theirs - ours == {"open_meter"}
    assert ours - theirs == {"target", "device", "threads", "measure"}
    for name in theirs & ours:
        defaults = {inspect.signature(verb).parameters[name].default for verb in (sdk.prune, stage_prune)}
        assert len(defaults) == 1, name
