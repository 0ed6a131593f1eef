"""Operations of the evaluator against torch or against what MIL documents, edge cases first."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unit.export.mil.op_cases import GRID, IMAGE, LINE, VOLUME, Case, check, ids, ints, noise, t

torch.set_num_threads(1)

W = noise(6, 2, 3, 2)
WT = noise(4, 3, 3, 2)


def conv_case(pads: tuple[int, int, int, int], pad_type: str, stride: int, dilation: int, **pad: Any) -> Case:
    left, right, top, bottom = pads
    arguments = {
        "x": IMAGE,
        "weight": W,
        "bias": LINE[:6],
        "strides": ints(stride, stride),
        "dilations": ints(dilation, dilation),
        "groups": np.int32(2),
        "pad_type": pad_type,
        **pad,
    }
    padded = F.pad(t(IMAGE), (left, right, top, bottom))
    return "conv", arguments, lambda: F.conv2d(padded, t(W), t(LINE[:6]), stride, 0, dilation, 2)


CONVOLUTIONS: list[Case] = [
    conv_case((0, 0, 0, 0), "valid", 1, 1),
    conv_case((3, 4, 1, 2), "custom", 2, 1, pad=ints(1, 2, 3, 4)),
    # 7 rows, kernel 3, stride 2: 4 out, 2 of padding; 9 columns, kernel 2, stride 2: 5 out, 1 of padding
    conv_case((0, 1, 1, 1), "same", 2, 1),
    conv_case((1, 0, 1, 1), "same_lower", 2, 1),
    conv_case((1, 1, 2, 2), "same", 1, 2),
    (
        "conv",
        {"x": VOLUME, "weight": noise(3, 2, 1, 1, 1) * 0 + 1},
        lambda: t(VOLUME).sum(1, keepdim=True).expand(1, 3, 5, 4, 6),
    ),
    (
        "conv",
        {"x": GRID[None], "weight": noise(5, 3, 4) * 0 + 1},
        lambda: F.conv1d(t(GRID[None]), torch.ones(5, 3, 4)),
    ),
    (
        "conv_transpose",
        {"x": IMAGE, "weight": WT, "strides": ints(2, 3), "pad_type": "valid", "groups": np.int32(2)},
        lambda: F.conv_transpose2d(t(IMAGE), t(WT), stride=(2, 3), groups=2),
    ),
    (
        "conv_transpose",
        {
            "x": IMAGE,
            "weight": WT,
            "bias": LINE[:3],
            "strides": ints(2, 2),
            "pad_type": "custom",
            "pad": ints(1, 1, 0, 0),
        },
        lambda: F.conv_transpose2d(t(IMAGE), t(WT), t(LINE[:3]), stride=2, padding=(1, 0)),
    ),
    (
        "conv_transpose",
        {
            "x": IMAGE,
            "weight": WT,
            "bias": LINE[:3],
            "strides": ints(2, 3),
            "pad_type": "custom",
            "pad": ints(1, 1, 0, 0),
            "output_shape": ints(2, 3, 14, 28),
        },
        lambda: F.conv_transpose2d(t(IMAGE), t(WT), t(LINE[:3]), (2, 3), (1, 0), (1, 2)),
    ),
    (
        "conv_transpose",
        {"x": IMAGE, "weight": noise(4, 3, 4, 4) * 0 + 1, "strides": ints(2, 2), "pad_type": "same"},
        lambda: F.conv_transpose2d(t(IMAGE), torch.ones(4, 3, 4, 4), stride=2, padding=1),
    ),
]
POOLS: list[Case] = [
    (
        "max_pool",
        {"x": IMAGE, "kernel_sizes": ints(3, 2), "pad_type": "valid"},
        lambda: F.max_pool2d(t(IMAGE), (3, 2), 1),
    ),
    (
        "max_pool",
        {
            "x": -np.abs(IMAGE),
            "kernel_sizes": ints(3, 3),
            "strides": ints(2, 2),
            "pad_type": "custom",
            "pad": ints(1, 1, 1, 1),
        },
        lambda: F.max_pool2d(-t(IMAGE).abs(), 3, 2, 1),
    ),
    (
        "max_pool",
        {
            "x": IMAGE,
            "kernel_sizes": ints(2, 2),
            "strides": ints(2, 2),
            "pad_type": "valid",
            "ceil_mode": True,
        },
        lambda: F.max_pool2d(t(IMAGE), 2, 2, ceil_mode=True),
    ),
    (
        "max_pool",
        {"x": VOLUME, "kernel_sizes": ints(2, 2, 2), "pad_type": "valid"},
        lambda: F.max_pool3d(t(VOLUME), 2, 1),
    ),
    (
        "l2_pool",
        {"x": IMAGE, "kernel_sizes": ints(2, 2), "pad_type": "valid"},
        lambda: F.lp_pool2d(t(IMAGE), 2, 2, 1),
    ),
] + [
    (
        "avg_pool",
        {
            "x": IMAGE,
            "kernel_sizes": ints(3, 3),
            "strides": ints(2, 2),
            "pad_type": "custom",
            "pad": ints(1, 1, 1, 1),
            "ceil_mode": ceil,
            "exclude_padding_from_average": exclude,
        },
        lambda ceil=ceil, exclude=exclude: F.avg_pool2d(
            t(IMAGE), 3, 2, 1, ceil_mode=ceil, count_include_pad=not exclude
        ),
    )
    for ceil in (False, True)
    for exclude in (False, True)
]
RESIZES: list[Case] = [
    (
        "upsample_nearest_neighbor",
        {"x": IMAGE, "scale_factor_height": 2, "scale_factor_width": 3},
        lambda: F.interpolate(t(IMAGE), scale_factor=(2, 3)),
    ),
    (
        "resize_nearest_neighbor",
        {"x": IMAGE, "target_size_height": 5, "target_size_width": 14},
        lambda: F.interpolate(t(IMAGE), size=(5, 14)),
    ),
    (
        "upsample_bilinear",
        {"x": IMAGE, "scale_factor_height": 2, "scale_factor_width": 3, "align_corners": True},
        lambda: F.interpolate(t(IMAGE), scale_factor=(2, 3), mode="bilinear", align_corners=True),
    ),
    (
        "upsample_bilinear",
        {"x": IMAGE, "scale_factor_height": 2, "scale_factor_width": 3, "align_corners": False},
        lambda: F.interpolate(t(IMAGE), scale_factor=(2, 3), mode="bilinear"),
    ),
    (
        "resize_bilinear",
        {"x": IMAGE, "target_size_height": 5, "target_size_width": 14, "sampling_mode": "UNALIGN_CORNERS"},
        lambda: F.interpolate(t(IMAGE), size=(5, 14), mode="bilinear"),
    ),
    (
        "resize_bilinear",
        {
            "x": IMAGE,
            "target_size_height": 1,
            "target_size_width": 1,
            "sampling_mode": "STRICT_ALIGN_CORNERS",
        },
        lambda: t(IMAGE)[..., :1, :1],
    ),
    # the table of MIL's documentation: Xin = 2, Xout = 5
    (
        "resize_bilinear",
        {
            "x": np.float32([[[0, 1]]]),
            "target_size_height": 1,
            "target_size_width": 5,
            "sampling_mode": "DEFAULT",
        },
        lambda: np.float32([[[0, 0.4, 0.8, 1, 1]]]),
    ),
    (
        "resize_bilinear",
        {
            "x": np.float32([[[0, 1]]]),
            "target_size_height": 1,
            "target_size_width": 5,
            "sampling_mode": "OFFSET_CORNERS",
        },
        lambda: np.float32([[[0.1, 0.3, 0.5, 0.7, 0.9]]]),
    ),
    (
        "resize_bilinear",
        {
            "x": np.float32([[[0, 1]]]),
            "target_size_height": 1,
            "target_size_width": 1,
            "sampling_mode": "ALIGN_CORNERS",
        },
        lambda: np.float32([[[0.5]]]),
    ),
    (
        "resize",
        {
            "x": IMAGE,
            "shape": ints(1, 5, 0),
            "resized_dims": 2,
            "interpolation_mode": "LINEAR",
            "sampling_mode": "UNALIGN_CORNERS",
        },
        lambda: F.interpolate(t(IMAGE), size=(5, 9), mode="bilinear"),
    ),
    (
        "resize",
        {
            "x": IMAGE,
            "shape": ints(5, 14),
            "resized_dims": 2,
            "interpolation_mode": "NEAREST_NEIGHBOR",
            "sampling_mode": "UNALIGN_CORNERS",
        },
        lambda: F.interpolate(t(IMAGE), size=(5, 14), mode="nearest-exact"),
    ),
] + [
    (
        "resample",
        {
            "x": IMAGE,
            "coordinates": np.tanh(GRID[:, :6]).reshape(1, 3, 3, 2).repeat(2, 0) * 1.3,
            "sampling_mode": "bilinear",
            "padding_mode": ours,
            "padding_value": 0.0,
            "coordinates_mode": "normalized_minus_one_to_one",
            "align_corners": corners,
        },
        lambda theirs=theirs, corners=corners: F.grid_sample(
            t(IMAGE),
            t(np.tanh(GRID[:, :6]).reshape(1, 3, 3, 2).repeat(2, 0) * np.float32(1.3)),
            padding_mode=theirs,
            align_corners=corners,
        ),
    )
    for ours, theirs, corners in (
        ("constant", "zeros", True),
        ("constant", "zeros", False),
        ("border", "border", False),
        ("reflection", "reflection", True),
        ("symmetric", "reflection", False),
    )
]

CASES = [*CONVOLUTIONS, *POOLS, *RESIZES]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_an_operation_computes_what_it_is_documented_to(case):
    check(case)
