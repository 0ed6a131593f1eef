import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk_runtimes.coreml_io import carry, coreml_name, output_names, restore, source_name
from sdk_runtimes.errors import FeedError, LoweringError
from sdk_runtimes.specs import TensorSpec

names = st.text(st.sampled_from("abx_0129./-é "), min_size=1, max_size=8)


@given(names)
def test_a_coreml_name_is_legal_and_leads_back(name):
    coreml = coreml_name(name)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", coreml)
    assert source_name(coreml) == name


@given(names, names)
def test_two_names_never_meet(one, other):
    assert (coreml_name(one) == coreml_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "coreml"),
    [
        ("x", "x"),
        ("past_key", "past_key"),
        ("x.mask", "x_x2e_mask"),
        ("logits/0", "logits_x2f_0"),
        ("0", "_x30_"),
        ("state", "_x73_tate"),
        ("a_x2e_b", "a_x5f_x2e_b"),
    ],
)
def test_legal_names_stay_and_others_are_escaped(name, coreml):
    assert coreml_name(name) == coreml


def test_an_output_may_share_the_name_of_an_input():
    given_names, results = ["x", "cache"], ["y", "cache"]
    coreml = output_names(given_names, results)
    assert not set(coreml) & {coreml_name(name) for name in given_names}
    assert [source_name(name) for name in coreml] == results


@pytest.mark.parametrize(
    ("dtype", "carried"),
    [
        ("float16", "float16"),
        ("float64", "float32"),
        ("bool", "int32"),
        ("int64", "int32"),
        ("uint8", "int32"),
    ],
)
def test_what_is_carried_comes_back(dtype, carried):
    spec = TensorSpec("x", dtype, (3,))
    array = np.array([0, 1, 1]).astype(dtype)
    there = carry(array, spec)
    assert there.dtype == carried
    back = restore(there, spec)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_a_scalar_goes_as_one_element():
    spec = TensorSpec("t", "float32", ())
    assert carry(np.float32(2.5).reshape(()), spec).shape == (1,)
    assert restore(np.array([2.5], np.float32), spec).shape == ()


def test_an_integer_that_int32_does_not_hold_is_refused():
    with pytest.raises(FeedError, match="2147483648"):
        carry(np.array([2**31]), TensorSpec("ids", "int64", (1,)))


def test_a_dtype_without_a_carrier_is_refused():
    with pytest.raises(LoweringError, match="uint64"):
        carry(np.zeros(1, np.uint64), TensorSpec("x", "uint64", (1,)))
