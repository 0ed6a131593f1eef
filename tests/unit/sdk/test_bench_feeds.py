from dataclasses import replace

import numpy as np
import pytest

from handmade import SIZE, matmul_bundle
from sdk.bench_feeds import bench_feeds, check_sizes, sizes_of, stretch
from sdk_runtimes.errors import ArgumentError, UnknownChoiceError
from sdk_runtimes.goldens import read_goldens
from sdk_runtimes.specs import ProgramSpec, SymbolRange, TensorSpec

TOKENS = TensorSpec("tokens", "int64", ("batch", "length"))
RANGES = (SymbolRange("batch", 1, 8), SymbolRange("length", 1, 64))
SPEC = ProgramSpec("net", "onnx", "fp32", (TOKENS,), (), ("f",), symbols=RANGES)


def test_feeds_are_the_golden_inputs(tmp_path):
    bundle = matmul_bundle(tmp_path / "a.bundle")
    feeds = bench_feeds(bundle, bundle.program(), {})
    golden = read_goldens(bundle.path / "golden/matmul.safetensors")[0][0]
    np.testing.assert_array_equal(feeds["X"], golden["X"])
    assert feeds["X"].shape == (SIZE, SIZE)


def test_stretching_repeats_and_cuts_so_that_values_stay_legal():
    ids = np.array([[5, 6, 7]])
    longer = stretch(ids, TOKENS, {"batch": 2, "length": 5})
    np.testing.assert_array_equal(longer, [[5, 6, 7, 5, 6]] * 2)
    np.testing.assert_array_equal(stretch(ids, TOKENS, {"length": 2}), [[5, 6]])
    assert longer.dtype == ids.dtype


def test_an_empty_axis_is_filled_with_zeros():
    cache = np.zeros((1, 0), np.int64)
    assert stretch(cache, TOKENS, {"length": 4}).tolist() == [[0, 0, 0, 0]]


def test_scalars_stay_scalars():
    assert stretch(np.float32(3)[()].reshape(()), TensorSpec("t", "float32", ()), {}).shape == ()


def test_sizes_are_read_off_the_feeds():
    assert sizes_of((TOKENS,), {"tokens": np.zeros((2, 9))}) == {"batch": 2, "length": 9}


def test_unknown_symbols_are_refused_with_the_known_ones():
    with pytest.raises(UnknownChoiceError, match="'batch', 'length'"):
        check_sizes(SPEC, {"bath": 1})


def test_sizes_out_of_range_are_refused():
    with pytest.raises(ArgumentError, match="1 to 8"):
        check_sizes(SPEC, {"batch": 9})


def test_sizes_between_the_steps_are_refused():
    stepped = replace(SPEC, symbols=(SymbolRange("batch", 1, 8), SymbolRange("length", 8, 64, 8)))
    check_sizes(stepped, {"length": 24})
    with pytest.raises(ArgumentError, match="8 to 64 in steps of 8"):
        check_sizes(stepped, {"length": 25})
