import pytest

from sdk.cli.arguments import DynamicAxis, dynamic_shapes, parse_dynamic, parse_sizes, split_names
from sdk_runtimes.errors import ArgumentError


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("x.0=batch:1:8", DynamicAxis("x", 0, "batch", (1, 8))),
        ("x.2=length", DynamicAxis("x", 2, "length")),
        ("cache.keys.1=past:0:64", DynamicAxis("cache.keys", 1, "past", (0, 64))),
        ("args.0.3=n", DynamicAxis("args.0", 3, "n")),
    ],
)
def test_dynamic_axes_are_read(text, axis):
    assert parse_dynamic(text) == axis


@pytest.mark.parametrize(
    "text", ["", "x", "x=batch", "x.0", "x.a=batch", "x.0=batch:1", "x.0=1:2:3", "x.-1=b"]
)
def test_what_is_no_dynamic_axis_is_refused(text):
    with pytest.raises(ArgumentError, match=r"x\.0=batch:1:8"):
        parse_dynamic(text)


def test_a_minimum_above_the_maximum_is_refused():
    with pytest.raises(ArgumentError, match="above"):
        parse_dynamic("x.0=batch:8:1")


def test_shapes_have_the_form_that_export_takes():
    texts = ("x.0=batch:1:8", "x.2=length", "state.h.1=batch:1:8")
    assert dynamic_shapes(map(parse_dynamic, texts)) == {
        "x": {0: ("batch", 1, 8), 2: "length"},
        "state.h": {1: ("batch", 1, 8)},
    }


def test_no_axes_are_none():
    assert dynamic_shapes(()) is None


def test_one_symbol_has_one_range():
    with pytest.raises(ArgumentError, match="two ranges"):
        dynamic_shapes(map(parse_dynamic, ("x.0=batch:1:8", "y.0=batch:1:4")))


def test_sizes_are_read():
    assert parse_sizes(["batch=4", "length=77"]) == {"batch": 4, "length": 77}
    with pytest.raises(ArgumentError, match="batch=4"):
        parse_sizes(["batch"])


def test_names_come_one_by_one_or_with_commas():
    assert split_names(["onnx,openvino", " coreml", "onnx", ""]) == ["onnx", "openvino", "coreml"]
