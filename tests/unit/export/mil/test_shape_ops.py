"""Operations of the evaluator against torch or against what MIL documents, edge cases first."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sdk_export.mil.table import OPS
from unit.export.mil.op_cases import GRID, IMAGE, LINE, PICKS, Case, check, ids, ints, noise, t

torch.set_num_threads(1)

SHAPES: list[Case] = [
    ("reshape", {"x": GRID, "shape": ints(2, -1, 3)}, lambda: t(GRID).reshape(2, -1, 3)),
    ("reshape", {"x": noise(2, 50) * 0, "shape": ints(1, 0, -1, 0)}, lambda: np.zeros((1, 1, 2, 50))),
    (
        "reshape_like",
        {
            "x": np.arange(60),
            "ref_tensors": (np.zeros((2, 3, 4)), np.zeros((1, 5, 2))),
            "begins": (0, 1),
            "ends": (2, 0),
            "end_masks": (False, True),
        },
        lambda: np.arange(60).reshape(2, 3, 5, 2),
    ),
    ("expand_dims", {"x": GRID, "axes": ints(0, -1)}, lambda: t(GRID)[None, ..., None]),
    ("squeeze", {"x": noise(1, 3, 1) * 0, "axes": ints(0, 1)}, lambda: np.zeros((3, 1))),
    ("concat", {"values": (GRID, GRID), "axis": -2}, lambda: torch.cat([t(GRID), t(GRID)], -2)),
    ("concat", {"values": (np.int32(3), np.int32(4)), "axis": 0}, lambda: np.array([3, 4])),
    (
        "concat",
        {"values": (ints(1, 3), ints(2, 4)), "axis": 0, "interleave": True},
        lambda: np.array([1, 2, 3, 4]),
    ),
    ("split", {"x": GRID, "axis": -1, "split_sizes": ints(3, 5)}, lambda: t(GRID).split((3, 5), -1)),
    ("split", {"x": GRID, "axis": 1, "num_splits": 2}, lambda: t(GRID).chunk(2, 1)),
    ("stack", {"values": (GRID, GRID), "axis": -1}, lambda: torch.stack([t(GRID), t(GRID)], -1)),
    ("tile", {"x": GRID, "reps": ints(2, 3)}, lambda: t(GRID).tile(2, 3)),
    (
        "pad",
        {"x": IMAGE, "pad": ints(1, 2, 3, 1), "mode": "reflect"},
        lambda: F.pad(t(IMAGE), (3, 1, 1, 2), mode="reflect"),
    ),
    (
        "pad",
        {"x": IMAGE, "pad": ints(1, 2, 3, 1), "mode": "replicate"},
        lambda: F.pad(t(IMAGE), (3, 1, 1, 2), mode="replicate"),
    ),
    (
        "pad",
        {"x": IMAGE, "pad": ints(0, 0, 1, 0, 1, 2, 3, 1), "constant_val": np.float32(2)},
        lambda: F.pad(t(IMAGE), (3, 1, 1, 2, 1, 0), value=2),
    ),
    (
        "range_1d",
        {"start": np.int32(5), "end": np.int32(0), "step": np.int32(-2)},
        lambda: np.array([5, 3, 1]),
    ),
    (
        "range_1d",
        {"start": np.float32(0), "end": np.float32(1), "step": np.float32(0.25)},
        lambda: torch.arange(0, 1, 0.25),
    ),
    ("fill", {"shape": ints(2, 3), "value": np.float32(1.5)}, lambda: torch.full((2, 3), 1.5)),
    ("fill_like", {"ref_tensor": GRID, "value": np.int32(2)}, lambda: torch.full((3, 8), 2)),
    (
        "one_hot",
        {"indices": ints(0, 2), "one_hot_vector_size": 4, "axis": -1},
        lambda: F.one_hot(torch.tensor([0, 2]), 4),
    ),
    (
        "one_hot",
        {"indices": ints(0, 2), "one_hot_vector_size": 4, "axis": 0, "on_value": 5, "off_value": -1},
        lambda: F.one_hot(torch.tensor([0, 2]), 4).T * 6 - 1,
    ),
    ("non_zero", {"x": GRID > 0.5}, (t(GRID) > 0.5).nonzero),
    ("reverse", {"x": GRID, "axes": ints(-1)}, lambda: t(GRID).flip(-1)),
    (
        "reverse_sequence",
        {"x": np.arange(6).reshape(2, 3), "lengths": ints(2, 3), "seq_axis": 1, "batch_axis": 0},
        lambda: np.array([[1, 0, 2], [5, 4, 3]]),
    ),
    ("sliding_windows", {"x": GRID, "axis": -1, "size": 3, "stride": 2}, lambda: t(GRID).unfold(-1, 3, 2)),
    ("transpose", {"x": IMAGE, "perm": ints(0, -1, 1, 2)}, lambda: t(IMAGE).permute(0, 3, 1, 2)),
    ("pixel_shuffle", {"x": IMAGE, "upscale_factor": 2}, lambda: F.pixel_shuffle(t(IMAGE), 2)),
    (
        "pixel_unshuffle",
        {"x": IMAGE[..., :6, :8], "downscale_factor": 2},
        lambda: F.pixel_unshuffle(t(IMAGE[..., :6, :8]), 2),
    ),
    (
        "crop",
        {"x": IMAGE, "crop_height": ints(1, 0), "crop_width": ints(2, 3)},
        lambda: t(IMAGE)[..., 1:, 2:6],
    ),
    ("flatten2d", {"x": IMAGE, "axis": 2}, lambda: t(IMAGE).reshape(8, 63)),
    ("shape", {"x": IMAGE}, lambda: np.array([2, 4, 7, 9])),
]
SLICES: list[Case] = [
    (
        "slice_by_index",
        {
            "x": IMAGE,
            "begin": ints(0, -1, 1, 5),
            "end": ints(2, 0, -1, 0),
            "stride": ints(1, 1, 2, 1),
            "squeeze_mask": np.array([0, 1, 0, 0], bool),
            "end_mask": np.array([0, 0, 0, 1], bool),
        },
        lambda: t(IMAGE)[:, -1, 1:-1:2, 5:],
    ),
    (
        "slice_by_index",
        {
            "x": LINE,
            "begin": ints(0),
            "end": ints(0),
            "stride": ints(-1),
            "begin_mask": np.array([True]),
            "end_mask": np.array([True]),
        },
        lambda: t(LINE).flip(0),
    ),
    ("slice_by_size", {"x": GRID, "begin": ints(-2, 1), "size": ints(1, -1)}, lambda: t(GRID)[1:2, 1:]),
    (
        "slice_update",
        {"x": GRID, "update": GRID[:2, :4] * 0, "begin": ints(0, 0), "end": ints(2, 8), "stride": ints(1, 2)},
        lambda: torch.cat([torch.stack([torch.zeros(2, 4), t(GRID)[:2, 1::2]], -1).flatten(1), t(GRID)[2:]]),
    ),
]
GATHERS: list[Case] = [
    ("gather", {"x": GRID, "indices": ints(2, 0, 2), "axis": -1}, lambda: t(GRID)[:, [2, 0, 2]]),
    ("gather", {"x": GRID, "indices": np.int32(1), "axis": 0}, lambda: t(GRID)[1]),
    (
        "gather",
        {"x": IMAGE, "indices": PICKS[:, :3], "axis": 2, "batch_dims": 1},
        lambda: torch.stack([t(IMAGE)[b][:, PICKS[b, :3]] for b in range(2)]),
    ),
    (
        "gather_along_axis",
        {"x": GRID, "indices": PICKS, "axis": 0},
        lambda: t(GRID).gather(0, t(PICKS).long()),
    ),
    ("gather_nd", {"x": GRID, "indices": np.array([[0, 1], [2, 7]])}, lambda: t(GRID)[[0, 2], [1, 7]]),
    (
        "gather_nd",
        {"x": IMAGE, "indices": np.array([[[1]], [[3]]]), "batch_dims": 1},
        lambda: torch.stack([t(IMAGE)[0, [1]], t(IMAGE)[1, [3]]]),
    ),
    (
        "scatter",
        {"data": GRID, "indices": ints(1, 1), "updates": GRID[:2], "axis": 0, "mode": "add"},
        lambda: t(GRID).index_add(0, torch.tensor([1, 1]), t(GRID[:2])),
    ),
    (
        "scatter",
        {"data": GRID, "indices": ints(1, 0), "updates": GRID[:, :2], "axis": -1, "mode": "update"},
        lambda: t(GRID).index_copy(1, torch.tensor([1, 0]), t(GRID[:, :2])),
    ),
    (
        "scatter_along_axis",
        {"data": GRID, "indices": PICKS, "updates": GRID[:2], "axis": 0, "mode": "max"},
        lambda: t(GRID).scatter_reduce(0, t(PICKS).long(), t(GRID[:2]), "amax"),
    ),
    (
        "scatter_nd",
        {"data": GRID, "indices": np.array([[0], [0]]), "updates": GRID[:2], "mode": "add"},
        lambda: t(GRID).index_add(0, torch.tensor([0, 0]), t(GRID[:2])),
    ),
]
CASES = [*SHAPES, *SLICES, *GATHERS]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_an_operation_computes_what_it_is_documented_to(case):
    check(case)


def test_depth_and_space_are_inverse_and_ordered():
    packed = OPS["space_to_depth"](IMAGE[..., :6, :8], 2)
    assert packed.shape == (2, 16, 3, 4)
    np.testing.assert_array_equal(packed[:, :4], IMAGE[..., :6:2, :8:2])  # the block's place is the slow part
    np.testing.assert_array_equal(OPS["depth_to_space"](packed, 2), IMAGE[..., :6, :8])


def test_batch_and_space_are_inverse():
    dealt = OPS["space_to_batch"](IMAGE[..., :6, :8], ints(2, 2), np.array([[1, 1], [0, 2]]))
    assert dealt.shape == (8, 4, 4, 5)
    again = OPS["batch_to_space"](dealt, ints(2, 2), np.array([[1, 1], [0, 2]]))
    np.testing.assert_array_equal(again, IMAGE[..., :6, :8])


@pytest.mark.parametrize("indices", [ints(-1), ints(3)])
def test_an_index_outside_is_refused_not_wrapped(indices):
    with pytest.raises(IndexError, match="the axis has 3"):
        OPS["gather"](GRID, indices, 0)
