"""Models that cannot be pruned as asked: a clear error, and the model as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pruned_networks import CASES
from sdk_pruning.plan import apply_plan
from sdk_pruning.prune import prune
from sdk_runtimes.errors import ArgumentError, PruningError, SdkError, TraceError, WeightsError


@torch.library.custom_op("sdk_pruning_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Custom(nn.Module):
    """An operation that nobody knows, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.conv3 = nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(twice(self.conv1(x))).relu())


class Branching(nn.Module):
    """Python control flow over values."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        return self.fc2(hidden.relu() if hidden.sum() > 0 else hidden.tanh())


class Twice(nn.Module):
    """One block for two places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.out(self.conv(self.conv(x).relu()).relu())


IMAGES = torch.randn(12, 3, 9, 9, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))


def refusal(model: nn.Module, data: Tensor, kind: type[SdkError] = PruningError, **options) -> str:
    """The error that pruning gives, after a look at the model: every bit of it must be as before."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shown, training, attributes = repr(model), model.training, set(vars(model))
    with pytest.raises(kind) as raised:
        prune(model, data, sample_inputs=data[:2], **({"ratio": 0.5} | options))
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8))
    assert (repr(model), model.training, set(vars(model))) == (shown, training, attributes)
    assert raised.value.fix
    return str(raised.value)


def test_an_unknown_operation_is_refused_by_name_with_what_to_protect():
    message = refusal(Custom(), IMAGES)

    assert "sdk_pruning_tests::twice" in message
    assert "protect=('conv1',)" in message


def test_what_an_unknown_operation_reads_can_be_protected():
    result = prune(Custom(), IMAGES, sample_inputs=IMAGES[:2], ratio=0.5, round_to=1, protect=("conv1",))

    assert result.model.conv1.out_channels == 8
    assert result.model.conv2.out_channels == 4


def test_a_layer_called_twice_is_refused_by_name():
    message = refusal(Twice(), IMAGES)

    assert "conv is called 2 times" in message
    assert "protect=('conv',)" in message


def test_the_rest_of_a_network_with_a_shared_layer_can_be_pruned():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1), Twice())

    result = prune(model, IMAGES, sample_inputs=IMAGES[:2], ratio=0.5, round_to=1, protect=("3.conv",))

    assert result.model[0].out_channels == 4
    assert result.model[3].conv.weight.shape == (8, 8, 3, 3)
    assert torch.equal(result.model[3].conv.weight, model[3].conv.weight)


def test_everything_protected_leaves_nothing_to_prune():
    message = refusal(CASES["lenet"].build(), torch.randn(8, 3, 12, 12), protect=("*",))

    assert "nothing in LeNet can be pruned" in message
    assert "protect='*'" in message
    assert "protect less" in message


def test_a_model_that_returns_its_features_has_nothing_to_prune():
    message = refusal(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), IMAGES)

    assert "nothing in Sequential can be pruned" in message
    assert "the model returns it" in message


def test_returned_features_stay_and_what_is_behind_them_goes():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            features = self.first(x).relu()
            return {"features": features, "logits": self.third(self.second(features).relu())}

    result = prune(Two(), IMAGES, sample_inputs=IMAGES[:2], ratio=0.5, round_to=1)

    assert (result.model.first.out_channels, result.model.second.out_channels) == (8, 3)


def test_a_model_that_cannot_be_traced_is_refused():
    message = refusal(Branching(), ROWS, TraceError)

    assert "torch.export could not trace Branching" in message


def test_a_pruned_model_is_refused_and_so_is_a_second_plan():
    model = CASES["lenet"].build()
    data = torch.randn(8, 3, 12, 12)
    result = prune(model, data, sample_inputs=data[:2], ratio=0.5)

    assert "pruned already" in refusal(result.model, data)
    with pytest.raises(PruningError, match="pruned already"):
        apply_plan(result.model, result.plan)
    with pytest.raises(PruningError, match="does not fit this model: conv1"):
        apply_plan(CASES["resnet_basic"].build(), result.plan)


def test_bad_weights_are_refused_by_name():
    model = Branching()
    with torch.no_grad():
        model.fc1.weight[0, 0] = float("nan")

    assert "fc1.weight" in refusal(model, ROWS, WeightsError)


def test_what_is_no_module_is_refused():
    with pytest.raises(ArgumentError, match="a function"):
        prune(lambda x: x, ROWS, sample_inputs=ROWS, ratio=0.5)  # type: ignore[arg-type]


def test_code_that_cannot_follow_keeps_its_channels_and_says_so():
    class Counts(nn.Module):
        """Writes its width down in a way that nothing can correct."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x).relu()
            assert hidden.shape[-1] == 8, "the width is eight"
            return self.third(self.second(hidden).relu())

    result = prune(Counts(), ROWS, sample_inputs=ROWS[:2], ratio=0.5, round_to=1)

    assert (result.model.first.out_features, result.model.second.out_features) == (8, 4)
    assert "its code cannot follow: AssertionError: the width is eight" in result.report.kept["first"]


def test_the_input_model_is_left_as_it_was_when_all_goes_well():
    case = CASES["Timm"]
    model = case.build().train()
    before = copy.deepcopy(model.state_dict())
    data = torch.randn(8, 6, 16)

    result = prune(model, data, sample_inputs=data[:2], ratio=0.5)

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert type(model.attn) is type(case.build().attn)
    assert result.model.state_dict().keys() == before.keys()
