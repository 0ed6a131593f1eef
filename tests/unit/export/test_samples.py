"""Where sample inputs come from, and their one normal form."""

import types

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sdk_export.samples import find_samples
from sdk_runtimes.errors import SampleInputsError

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class One(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_none_at_all_shows_how_to_pass_them():
    with pytest.raises(SampleInputsError) as caught:
        find_samples(Two())
    error = caught.value
    assert "Two came without sample inputs" in error.what
    assert all(source in error.why for source in ("sample_inputs()", "dummy_inputs", "pretrained_cfg"))
    assert "sample_inputs=(torch.randn" in error.fix


@pytest.mark.parametrize(
    "given",
    [(X,), (X, X, X), {"x": X}, {"x": X, "z": X}, X],
    ids=["few", "many", "missing", "unknown", "lone"],
)
def test_samples_that_do_not_fit_show_the_signature(given):
    with pytest.raises(SampleInputsError) as caught:
        find_samples(Two(), given)
    error = caught.value
    assert "Two.forward(x" in error.what
    assert error.why
    assert "sample_inputs=" in error.fix


def test_a_value_given_twice_is_refused():
    with pytest.raises(SampleInputsError, match="multiple values"):
        find_samples(Two(), (X, X), {"x": X})


@pytest.mark.parametrize("given", [X, (X,), [X], {"x": X}], ids=["tensor", "tuple", "list", "dict"])
def test_the_normal_form(given):
    samples = find_samples(One(), given)
    (value,) = (*samples.args, *samples.kwargs.values())
    assert torch.equal(value, X)


def test_numpy_arrays_stand_for_tensors_at_any_depth():
    class Deep(nn.Module):
        def forward(self, x, more):
            return x

    samples = find_samples(Deep(), (X.numpy(), {"a": [np.arange(3)]}), None)
    assert torch.equal(samples.args[0], X)
    assert torch.equal(samples.args[1]["a"][0], torch.arange(3))


def test_arguments_beside_keywords():
    samples = find_samples(Two(), (X,), {"y": X.numpy()})
    assert torch.equal(samples.args[1], X)
    assert samples.kwargs == {}


def test_the_models_own_method_comes_first():
    class Own(One):
        dummy_inputs = types.MappingProxyType({"x": X * 5})
        pretrained_cfg = types.MappingProxyType({"input_size": (3, 8, 8)})

        def sample_inputs(self):
            return (X * 2,)

    assert torch.equal(find_samples(Own()).args[0], X * 2)


def test_hugging_face_dummy_inputs():
    class Text(nn.Module):
        dummy_inputs = types.MappingProxyType({"input_ids": torch.tensor([[7, 6, 0]])})

        def forward(self, input_ids=None, attention_mask=None):
            return input_ids

    samples = find_samples(Text())
    values = [*samples.args, *samples.kwargs.values()]
    assert [value.tolist() for value in values] == [[[7, 6, 0]]]


@pytest.mark.parametrize("attribute", ["pretrained_cfg", "default_cfg"])
@pytest.mark.parametrize(
    "config", [{"input_size": (3, 6, 5)}, types.SimpleNamespace(input_size=[3, 6, 5])], ids=["dict", "object"]
)
def test_timms_input_size(attribute, config):
    model = One()
    setattr(model, attribute, config)
    first, second = find_samples(model), find_samples(model)
    assert first.args[0].shape == (1, 3, 6, 5)
    assert first.args[0].std() > 0.5  # zeros would be no test
    assert torch.equal(first.args[0], second.args[0])


@pytest.mark.parametrize("config", [{}, {"input_size": None}, {"input_size": ("3", 8)}, None])
def test_a_config_without_a_size_is_no_source(config):
    model = One()
    model.pretrained_cfg = config
    with pytest.raises(SampleInputsError):
        find_samples(model)


def test_empty_dummy_inputs_are_no_source():
    model = One()
    model.dummy_inputs = {}
    with pytest.raises(SampleInputsError):
        find_samples(model)


def test_what_the_caller_passes_wins_over_the_models_own():
    model = One()
    model.dummy_inputs = {"x": X * 5}
    assert torch.equal(find_samples(model, X).args[0], X)
