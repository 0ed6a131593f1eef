"""Names of flat inputs and outputs, for every way in which they can be nested."""

import dataclasses
import inspect
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sdk
from sdk_export.capture import capture
from sdk_export.names import output_leaves

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
Y = X + 1


@dataclasses.dataclass
class Detections:
    boxes: Tensor
    scores: Tensor


class Pair(NamedTuple):
    mean: Tensor
    spread: Tensor


class Returning(nn.Module):
    """Returns x and 2x in the form asked for."""

    def __init__(self, form) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor):
        return self.form(x * 1, x * 2)


FORMS = {
    "lone tensor": (lambda a, b: a, ["output"]),
    "tuple": (lambda a, b: (a, b), ["output_0", "output_1"]),
    "tuple of one": (lambda a, b: (a,), ["output_0"]),
    "list": (lambda a, b: [a, b], ["output_0", "output_1"]),
    "dict": (lambda a, b: {"logits": a, "aux": b}, ["logits", "aux"]),
    "ordered dict": (lambda a, b: OrderedDict(logits=a, aux=b), ["logits", "aux"]),
    "dict of a tuple": (lambda a, b: {"states": (a, b)}, ["states.0", "states.1"]),
    "tuple of a dict": (lambda a, b: (a, {"mask": b}), ["output_0", "output_1.mask"]),
    "None in a tuple": (lambda a, b: (a, None, b), ["output_0", "output_2"]),
    "None in a dict": (lambda a, b: {"loss": None, "logits": b}, ["logits"]),
    "dataclass": (Detections, ["boxes", "scores"]),
    "dataclass in a dict": (lambda a, b: {"found": Detections(a, b)}, ["found.boxes", "found.scores"]),
    "named tuple": (Pair, ["mean", "spread"]),
    "a number beside": (lambda a, b: (a, 3, b), ["output_0", "output_2"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_are_named_after_their_structure(form):
    make, names = FORMS[form]
    captured = capture(Returning(make), sample_inputs=X)
    assert [spec.name for spec in captured.outputs] == names
    truth = captured.reference(captured.samples)
    assert list(truth) == names
    eager = [leaf for _, leaf in output_leaves(make(X * 1, X * 2)) if isinstance(leaf, Tensor)]
    for got, expected in zip(truth.values(), eager, strict=True):
        np.testing.assert_array_equal(got, expected.numpy())


@dataclasses.dataclass
class Batch:
    image: Tensor
    mask: Tensor


class Nested(nn.Module):
    def forward(self, batch, states, *, scale):
        return batch["image"] * states[0] + states[1] * scale


class Listed(nn.Module):
    def forward(self, x, *rest, **named):
        return x + sum(rest) + named["bias"]


class FromDataclass(nn.Module):
    def forward(self, batch):
        return batch.image * batch.mask


CALLS = {
    "nested": (
        Nested(),
        ({"image": X}, [X, Y]),
        {"scale": Y},
        ["batch.image", "states.0", "states.1", "scale"],
    ),
    "*args and **kwargs": (Listed(), (X, X, Y), {"bias": Y}, ["x", "rest.0", "rest.1", "bias"]),
    "dataclass": (FromDataclass(), (Batch(X, Y),), {}, ["batch.image", "batch.mask"]),
}


@pytest.mark.parametrize("call", CALLS)
def test_inputs_are_named_after_parameters_and_what_is_nested_in_them(call):
    model, args, kwargs, names = CALLS[call]
    captured = capture(model, sample_inputs=args, sample_kwargs=kwargs)
    assert [spec.name for spec in captured.inputs] == names
    truth = captured.reference(captured.samples)["output"]
    np.testing.assert_array_equal(truth, model(*args, **kwargs).numpy())


class Keywords(nn.Module):
    def forward(self, first, second=None, *, third):
        return first - third if second is None else first - 2 * second - 4 * third


def test_keyword_inputs_keep_the_order_of_the_signature_not_of_the_dict():
    captured = capture(Keywords(), sample_inputs={"third": Y, "second": X * 3, "first": X})
    assert [spec.name for spec in captured.inputs] == ["first", "second", "third"]
    expected = X - 6 * X - 4 * Y
    np.testing.assert_array_equal(captured.reference(captured.samples)["output"], expected.numpy())


def test_arguments_that_are_no_tensors_are_constants_of_the_trace():
    class Scaled(nn.Module):
        def forward(self, x, factor=1.0, *, mode="plain"):
            return x * factor if mode == "times" else x

    captured = capture(Scaled(), sample_inputs=(X, 3.0), sample_kwargs={"mode": "times"})
    assert [spec.name for spec in captured.inputs] == ["x"]
    truth = captured.reference({"x": Y.numpy()})["output"]
    np.testing.assert_array_equal(truth, (Y * 3).numpy())


def test_names_reach_the_session_in_order(tmp_path):
    """Nested in, nested out, one name for an input and an output."""

    class Stepping(nn.Module):
        def forward(self, x, states):
            return {"x": x + states["h"], "states": {"h": states["h"] * 2}, "none": None}

    sdk.export(Stepping(), tmp_path / "out", sample_inputs=(X, {"h": Y}))
    with sdk.load(tmp_path / "out") as session:
        got = session.run({"x": X.numpy(), "states.h": Y.numpy()})
    assert list(got) == ["x", "states.h"]
    np.testing.assert_allclose(got["x"], (X + Y).numpy(), rtol=1e-6)
    np.testing.assert_allclose(got["states.h"], (Y * 2).numpy(), rtol=1e-6)


def test_names_that_are_keywords_of_torch_do_not_collide():
    class Odd(nn.Module):
        def forward(self, input, output, self_):  # noqa: A002 - the point of the test
            return input + output * self_

    captured = capture(Odd(), sample_inputs=(X, Y, X))
    assert [spec.name for spec in captured.inputs] == list(inspect.signature(Odd().forward).parameters)
