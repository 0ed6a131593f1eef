"""Dynamic axes: what the caller writes, what is refused, and what reaches the specs."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sdk_export.capture import capture
from sdk_runtimes.errors import ArgumentError, SdkError, TraceError
from sdk_runtimes.specs import SymbolRange

X = torch.linspace(-1.0, 1.0, 12).reshape(3, 4)


class Net(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Nested(nn.Module):
    def forward(self, batch, y):
        return batch["a"] + y


def dims_of(captured):
    return captured.inputs[0].shape, captured.symbols


FORMS = {
    "dict of a triple": {"x": {0: ("batch", 1, 8)}},
    "list for triple": {"x": {0: ["batch", 1, 8]}},
    "tuple by position": ({0: ("batch", 1, 8)},),
    "axes in a list": {"x": [("batch", 1, 8), None]},
    "fixed axes as ints": {"x": {0: ("batch", 1, 8), 1: 4}},
    "torch's Dim": {"x": {0: torch.export.Dim("batch", min=1, max=8)}},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_symbol(form):
    captured = capture(Net(), sample_inputs=X, dynamic_shapes=FORMS[form])
    assert dims_of(captured) == (("batch", 4), (SymbolRange("batch", 1, 8),))
    assert captured.outputs[0].shape == ("batch", 4)


def test_a_bare_name_has_the_default_range():
    captured = capture(Net(), sample_inputs=X, dynamic_shapes={"x": {0: "rows"}})
    assert dims_of(captured) == (("rows", 4), (SymbolRange("rows", 1, 1024),))


def test_one_name_is_one_symbol():
    captured = capture(
        Nested(),
        sample_inputs=({"a": X}, X),
        dynamic_shapes={"batch": {"a": {0: ("n", 1, 8)}}, "y": {0: ("n", 1, 8)}},
    )
    assert [spec.shape for spec in captured.inputs] == [("n", 4), ("n", 4)]
    assert captured.symbols == (SymbolRange("n", 1, 8),)


def test_nested_inputs_can_be_named_flat():
    captured = capture(
        Nested(),
        sample_inputs=({"a": X}, X),
        dynamic_shapes={"batch.a": {0: ("n", 1, 8)}, "y": {0: ("n", 1, 8)}},
    )
    assert [spec.shape for spec in captured.inputs] == [("n", 4), ("n", 4)]


def test_a_sample_of_length_one_stays_one_long():
    """torch.export takes 1 for a constant; the trace is made with 2, the sample is the caller's."""
    captured = capture(Net(), sample_inputs=X[:1], dynamic_shapes={"x": {0: ("n", 1, 8)}})
    assert captured.inputs[0].shape == ("n", 4)
    np.testing.assert_array_equal(captured.samples["x"], X[:1].numpy())


def test_an_output_shape_is_told_in_the_callers_symbols():
    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x])

    captured = capture(Doubling(), sample_inputs=X, dynamic_shapes={"x": {0: ("n", 1, 8)}})
    assert captured.outputs[0].shape == ("2*n", 4)


def test_an_axis_in_steps():
    rows = torch.export.Dim("rows", min=2, max=4)  # torch itself raises a 1 to 2 here
    captured = capture(Net(), sample_inputs=torch.zeros(6, 4), dynamic_shapes={"x": {0: 3 * rows}})
    (symbol,) = captured.symbols
    assert (symbol.minimum, symbol.maximum, symbol.step) == (6, 12, 3)
    assert captured.inputs[0].shape == (symbol.symbol, 4)


BAD = {
    "unknown name": ({"pixels": {0: ("n", 1, 8)}}, "names 'pixels'"),
    "unknown nested name": ({"batch": {"b": {0: ("n", 1, 8)}}}, "'batch.b'"),
    "axis beyond the rank": ({"y": {2: ("n", 1, 8)}}, "axis 2"),
    "negative axis": ({"y": {-1: ("n", 1, 8)}}, "axis -1"),
    "axis that is no int": ({"y": {"0": ("n", 1, 8)}}, r"\['y'\]"),
    "axes that are no dict": ({"y": 3}, r"\['y'\] is 3"),
    "a nested input as one": ({"batch": 3}, r"\['batch'\] is 3"),
    "minimum above maximum": ({"y": {0: ("n", 8, 1)}}, "cannot be read"),
    "negative minimum": ({"y": {0: ("n", -1, 8)}}, "cannot be read"),
    "no identifier": ({"y": {0: ("my batch", 1, 8)}}, "cannot be read"),
    "pair": ({"y": {0: ("n", 8)}}, "cannot be read"),
    "float bounds": ({"y": {0: ("n", 1.0, 8.0)}}, "cannot be read"),
    "numbers only": ({"y": {0: (1, 8)}}, "cannot be read"),
    "a bare name that is no identifier": ({"y": {0: "my batch"}}, "'my batch'"),
    "no mapping": ("batch", "is a str"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_meant_is_refused(case):
    given, told = BAD[case]
    with pytest.raises(ArgumentError, match=told) as caught:
        capture(Nested(), sample_inputs=({"a": X}, X), dynamic_shapes=given)
    assert caught.value.why


def test_an_unknown_name_lists_the_inputs():
    with pytest.raises(ArgumentError) as caught:
        capture(Nested(), sample_inputs=({"a": X}, X), dynamic_shapes={"pixels": {0: "n"}})
    assert "batch.a" in caught.value.why
    assert "'y'" in caught.value.why
    assert caught.value.fix


def test_a_sample_outside_the_range_is_one_of_our_errors():
    with pytest.raises(SdkError) as caught:
        capture(Net(), sample_inputs=X, dynamic_shapes={"x": {0: ("n", 4, 8)}})
    assert caught.value.why


def test_an_axis_that_the_code_fixes_is_a_trace_error():
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(3, 2, 2)

    with pytest.raises(TraceError) as caught:
        capture(Fixed(), sample_inputs=X, dynamic_shapes={"x": {0: ("n", 1, 8)}})
    assert caught.value.why
    assert "dynamic_shapes" in caught.value.fix or "dimension" in caught.value.fix


def test_two_ranges_for_one_name_are_refused():
    with pytest.raises(ArgumentError, match="'n'"):
        capture(
            Nested(),
            sample_inputs=({"a": X}, X),
            dynamic_shapes={"batch": {"a": {0: ("n", 1, 8)}}, "y": {0: ("n", 1, 16)}},
        )
