import numpy as np
import pytest

from sdk.array_files import check_out, read_feeds, write_arrays
from sdk_runtimes.errors import ArgumentError, OutputExistsError, UnknownChoiceError, WriteError

ARRAYS = {"file": np.arange(3), "b.c": np.float32(2.5)[()].reshape(()), "empty": np.zeros((0, 2), bool)}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_arrays_come_back_as_they_went(tmp_path, suffix):
    path = tmp_path / f"arrays{suffix}"
    write_arrays(path, ARRAYS)
    back = read_feeds([str(path)])
    assert back.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape


def test_a_name_picks_its_array_or_takes_the_only_one(tmp_path):
    write_arrays(tmp_path / "two.npz", {"a": np.zeros(1), "b": np.ones(1)})
    assert read_feeds([f"b={tmp_path / 'two.npz'}"])["b"] == [1]
    np.save(tmp_path / "one.npy", np.arange(2))
    assert read_feeds([f"x={tmp_path / 'one.npy'}"])["x"].tolist() == [0, 1]
    with pytest.raises(UnknownChoiceError, match="'a', 'b'"):
        read_feeds([f"c={tmp_path / 'two.npz'}"])


def test_a_npy_needs_a_name(tmp_path):
    with pytest.raises(ArgumentError, match="has no name"):
        read_feeds([str(tmp_path / "x.npy")])


def test_an_input_is_given_once(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(1))
    with pytest.raises(ArgumentError, match="twice"):
        read_feeds([f"x={tmp_path / 'x.npy'}"] * 2)


def test_pickles_are_not_read(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ArgumentError, match="allow_pickle=False"):
        read_feeds([f"x={tmp_path / 'evil.npy'}"])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_rubbish_and_missing_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_feeds([f"x={path}"])
    path.write_bytes(b"rubbish" * 9)
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_feeds([f"x={path}"])


def test_unknown_types_list_the_known_ones(tmp_path):
    with pytest.raises(UnknownChoiceError, match=r"\.safetensors"):
        read_feeds(["x=picture.jpg"])
    with pytest.raises(UnknownChoiceError, match=r"\.npz"):
        check_out(tmp_path / "out.pkl", overwrite=True)


def test_out_is_not_replaced_unasked(tmp_path):
    out = tmp_path / "y.npz"
    check_out(out, overwrite=False)
    out.touch()
    with pytest.raises(OutputExistsError):
        check_out(out, overwrite=False)
    check_out(out, overwrite=True)


def test_a_place_that_cannot_be_written_to_is_our_error(tmp_path):
    with pytest.raises(WriteError):
        write_arrays(tmp_path / "nowhere" / "y.npz", ARRAYS)
