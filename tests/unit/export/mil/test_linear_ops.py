"""Operations of the evaluator against torch or against what MIL documents, edge cases first."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sdk_export.mil.table import OPS
from unit.export.mil.op_cases import (
    GRID,
    IMAGE,
    LINE,
    POSITIVE,
    Case,
    check,
    ids,
    ints,
    noise,
    t,
)

torch.set_num_threads(1)

NORMS: list[Case] = [
    (
        "batch_norm",
        {
            "x": IMAGE,
            "mean": LINE[:4],
            "variance": POSITIVE[0, :4],
            "gamma": LINE[1:5],
            "beta": LINE[2:6],
            "epsilon": np.float32(0.1),
        },
        lambda: F.batch_norm(
            t(IMAGE), t(LINE[:4]), t(POSITIVE[0, :4].copy()), t(LINE[1:5]), t(LINE[2:6]), eps=0.1
        ),
    ),
    (
        "instance_norm",
        {"x": IMAGE, "gamma": LINE[:4], "beta": LINE[1:5], "epsilon": np.float32(1e-3)},
        lambda: F.instance_norm(t(IMAGE), weight=t(LINE[:4]), bias=t(LINE[1:5]), eps=1e-3),
    ),
    (
        "layer_norm",
        {"x": IMAGE, "axes": ints(-1, -2), "epsilon": np.float32(1e-3)},
        lambda: F.layer_norm(t(IMAGE), (7, 9), eps=1e-3),
    ),
    (
        "layer_norm",
        {"x": GRID, "axes": ints(-1), "gamma": GRID[0], "beta": GRID[1]},
        lambda: F.layer_norm(t(GRID), (8,), t(GRID[0]), t(GRID[1])),
    ),
    (
        "l2_norm",
        {"x": IMAGE, "epsilon": np.float32(0.5)},
        lambda: t(IMAGE) / (t(IMAGE).square().sum((1, 2, 3), keepdim=True) + 0.5).sqrt(),
    ),
    (
        "local_response_norm",
        {"x": IMAGE, "size": np.int32(3), "alpha": np.float32(0.3)},
        lambda: F.local_response_norm(t(IMAGE), 3, 0.3),
    ),
]
LINEAR: list[Case] = [
    (
        "linear",
        {"x": GRID, "weight": noise(5, 8) * 0 + 2, "bias": LINE[:5]},
        lambda: F.linear(t(GRID), torch.full((5, 8), 2.0), t(LINE[:5])),
    ),
    ("matmul", {"x": IMAGE, "y": IMAGE, "transpose_y": True}, lambda: t(IMAGE) @ t(IMAGE).mT),
    ("matmul", {"x": IMAGE, "y": IMAGE, "transpose_x": True}, lambda: t(IMAGE).mT @ t(IMAGE)),
    (
        "einsum",
        {"values": (IMAGE, IMAGE), "equation": "nchw,nkhw->nck"},
        lambda: torch.einsum("nchw,nkhw->nck", t(IMAGE), t(IMAGE)),
    ),
    (
        "scaled_dot_product_attention",
        {"query": IMAGE, "key": IMAGE, "value": IMAGE},
        lambda: F.scaled_dot_product_attention(t(IMAGE), t(IMAGE), t(IMAGE)),
    ),
    (
        "scaled_dot_product_attention",
        {"query": IMAGE, "key": IMAGE, "value": IMAGE, "attn_mask": np.tri(7) > 0},
        lambda: F.scaled_dot_product_attention(t(IMAGE), t(IMAGE), t(IMAGE), is_causal=True),
    ),
    ("band_part", {"x": GRID, "lower": 0, "upper": -1}, lambda: t(GRID).triu()),
    ("band_part", {"x": GRID, "lower": -1, "upper": 1}, lambda: t(GRID).tril(1)),
]
REDUCTIONS: list[Case] = [
    (
        "reduce_mean",
        {"x": IMAGE, "axes": ints(-1, 1), "keep_dims": True},
        lambda: t(IMAGE).mean((-1, 1), keepdim=True),
    ),
    ("reduce_sum", {"x": IMAGE}, lambda: t(IMAGE).sum()),
    ("reduce_log_sum_exp", {"x": GRID * 60, "axes": ints(1)}, lambda: torch.logsumexp(t(GRID * 60), 1)),
    ("reduce_l1_norm", {"x": GRID, "axes": ints(1)}, lambda: t(GRID).norm(1, 1)),
    ("reduce_l2_norm", {"x": GRID, "axes": ints(1)}, lambda: t(GRID).norm(2, 1)),
    ("reduce_log_sum", {"x": POSITIVE, "axes": ints(0)}, lambda: t(POSITIVE).sum(0).log()),
    ("reduce_sum_square", {"x": GRID, "axes": ints(0)}, lambda: t(GRID).square().sum(0)),
    ("reduce_prod", {"x": GRID, "axes": ints(0)}, lambda: t(GRID).prod(0)),
    ("reduce_argmax", {"x": GRID, "axis": -1, "keep_dims": True}, lambda: t(GRID).argmax(-1, keepdim=True)),
    ("reduce_argmin", {"x": GRID, "axis": 0}, lambda: t(GRID).argmin(0)),
    ("cumsum", {"x": GRID, "axis": -1}, lambda: t(GRID).cumsum(-1)),
    ("cumsum", {"x": ints(1, 2, 3), "exclusive": True}, lambda: np.array([0, 1, 3])),
    ("cumsum", {"x": ints(1, 2, 3), "reverse": True}, lambda: np.array([6, 5, 3])),
    ("cumsum", {"x": ints(1, 2, 3), "reverse": True, "exclusive": True}, lambda: np.array([5, 3, 0])),
    ("argsort", {"x": GRID, "axis": -1}, lambda: t(GRID).argsort(-1, descending=True)),
    ("argsort", {"x": GRID, "axis": 0, "ascending": True}, lambda: t(GRID).argsort(0)),
    ("topk", {"x": GRID, "k": 3}, lambda: t(GRID).topk(3)),
    ("topk", {"x": GRID, "k": 2, "axis": 0, "ascending": True}, lambda: t(GRID).topk(2, 0, largest=False)),
]
CASES = [*NORMS, *LINEAR, *REDUCTIONS]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_an_operation_computes_what_it_is_documented_to(case):
    check(case)


def test_a_row_that_attends_to_nothing_is_nan():
    mask = np.zeros((7, 7), bool)
    got = OPS["scaled_dot_product_attention"](IMAGE, IMAGE, IMAGE, mask)
    assert math.isnan(got.ravel()[0])
