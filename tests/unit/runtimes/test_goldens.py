"""Goldens come back as they were written, and nothing else is read."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sdk_runtimes.errors import ArgumentError, BundleError, IntegrityError, UnsafeBundleError
from sdk_runtimes.feeds import Array
from sdk_runtimes.goldens import read_goldens, write_goldens
from sdk_runtimes.limits import Limits
from sdk_runtimes.specs import DTYPES

arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
sides = st.dictionaries(names, arrays, max_size=3)
cases = st.lists(st.tuples(sides, sides).filter(lambda case: bool(case[0] or case[1])), max_size=3)


def same(left: dict[str, Array], right: dict[str, Array]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=cases)
def test_round_trip(tmp_path: Path, written: list[tuple[dict[str, Array], dict[str, Array]]]) -> None:
    write_goldens(tmp_path / "g", written)
    read = read_goldens(tmp_path / "g")
    assert len(read) == len(written)
    assert all(
        same(a, b) for one, two in zip(read, written, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_keys_are_as_documented(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write_goldens(tmp_path / "g", [({"x": np.zeros(2)}, {"y": np.ones(1)}), ({"x": np.ones(2)}, {})])
    assert sorted(load_file(tmp_path / "g")) == ["0/in/x", "0/out/y", "1/in/x"]


def test_views_and_foreign_byte_orders_are_written_by_value(tmp_path: Path) -> None:
    x = np.arange(12, dtype=">i4").reshape(3, 4).T[:, ::-1]
    write_goldens(tmp_path / "g", [({"x": x}, {})])
    read = read_goldens(tmp_path / "g")[0][0]["x"]
    assert read.dtype.byteorder in ("=", "<" if sys.byteorder == "little" else ">")
    np.testing.assert_array_equal(read, x)


def test_a_dtype_of_no_program(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="complex64"):
        write_goldens(tmp_path / "g", [({"x": np.zeros(2, np.complex64)}, {})])


def raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


FORGED = {
    "header longer than the file": ({}, b"", 1 << 20),
    "header of exabytes": ({}, b"", (1 << 63) + 5),
    "header is a list": ([], b"", None),
    "header is nested": (b"[" * 100_000, b"", None),
    "header above the cap": (b" " * (2 << 20), b"", None),
    "data longer than said": ({"0/in/x": tensor("F32", [1], 0, 4)}, bytes(8), None),
    "data shorter than said": ({"0/in/x": tensor("F32", [4], 0, 16)}, bytes(8), None),
    "shape that overflows": ({"0/in/x": tensor("F32", [1 << 62, 4], 0, 16)}, bytes(16), None),
    "shape and bytes disagree": ({"0/in/x": tensor("F32", [3], 0, 16)}, bytes(16), None),
    "overlapping tensors": (
        {"0/in/x": tensor("F32", [2], 0, 8), "0/in/y": tensor("F32", [2], 4, 12)},
        bytes(12),
        None,
    ),
    "a dtype of no program": ({"0/in/x": tensor("BF16", [1], 0, 2)}, bytes(2), None),
    "complex numbers": ({"0/in/x": tensor("C64", [1], 0, 8)}, bytes(8), None),
    "no case": ({"x": tensor("U8", [1], 0, 1)}, bytes(1), None),
    "no side": ({"0/x": tensor("U8", [1], 0, 1)}, bytes(1), None),
    "no name": ({"0/in/": tensor("U8", [1], 0, 1)}, bytes(1), None),
    "a digit of another script": ({"\u0663/in/x": tensor("U8", [1], 0, 1)}, bytes(1), None),
    "a number that takes minutes": ({"9" * 5000 + "/in/x": tensor("U8", [1], 0, 1)}, bytes(1), None),
    "cases that start at 1": ({"1/in/x": tensor("U8", [1], 0, 1)}, bytes(1), None),
}


@pytest.mark.parametrize("fault", FORGED)
def test_forged_files(tmp_path: Path, fault: str) -> None:
    with pytest.raises(UnsafeBundleError):
        read_goldens(raw(tmp_path / "g", *FORGED[fault]))


def test_a_size_above_the_cap(tmp_path: Path) -> None:
    write_goldens(tmp_path / "g", [({"x": np.zeros(100)}, {})])
    with pytest.raises(UnsafeBundleError, match="at most 64"):
        read_goldens(tmp_path / "g", limits=Limits(golden_bytes=64))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        read_goldens(tmp_path / "none")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_mutations_raise_our_errors_or_nothing(tmp_path: Path, position: int, value: int, cut: int) -> None:
    write_goldens(tmp_path / "g", [({"x": np.arange(6.0)}, {"y": np.ones(2, np.int8)})])
    data = bytearray((tmp_path / "g").read_bytes())
    data[position % len(data)] = value
    (tmp_path / "g").write_bytes(data[: len(data) - cut])
    try:
        read = read_goldens(tmp_path / "g")
    except BundleError:
        return
    assert all(array.dtype.name in DTYPES for case in read for side in case for array in side.values())
