"""Operations of the evaluator against torch or against what MIL documents, edge cases first."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unit.export.mil.op_cases import GRID, IMAGE, LINE, POSITIVE, Case, check, ids, ints, t

torch.set_num_threads(1)

ELEMENTWISE: list[Case] = [
    ("clip", {"x": GRID, "alpha": -0.5, "beta": 0.7}, lambda: t(GRID).clamp(-0.5, 0.7)),
    ("floor_div", {"x": ints(-7, 7, -6), "y": ints(2, -2, 3)}, lambda: np.array([-4, -4, -2])),
    ("mod", {"x": ints(-7, 7, 6), "y": ints(3, -3, 3)}, lambda: np.array([2, -2, 0])),
    ("round", {"x": np.float32([-2.5, -1.5, 0.5, 1.5])}, lambda: np.float32([-2, -2, 0, 2])),
    ("rsqrt", {"x": POSITIVE, "epsilon": np.float32(0.5)}, lambda: torch.rsqrt(t(POSITIVE) + 0.5)),
    ("inverse", {"x": POSITIVE, "epsilon": np.float32(0.5)}, lambda: 1 / (t(POSITIVE) + 0.5)),
    ("inverse", {"x": POSITIVE}, lambda: 1 / (t(POSITIVE) + 1e-4)),
    ("log", {"x": POSITIVE, "epsilon": np.float32(0.5)}, lambda: torch.log(t(POSITIVE) + 0.5)),
    ("threshold", {"x": GRID, "alpha": np.float32(0.2)}, lambda: t(GRID).clamp(min=0.2)),
    (
        "select",
        {"cond": GRID > 0, "a": GRID, "b": np.float32(-1)},
        lambda: torch.where(t(GRID) > 0, t(GRID), -1.0),
    ),
    ("logical_xor", {"x": GRID > 0, "y": GRID > 1}, lambda: (t(GRID) > 0) ^ (t(GRID) > 1)),
    ("erf", {"x": GRID}, lambda: torch.erf(t(GRID))),
    ("exp2", {"x": GRID}, lambda: torch.exp2(t(GRID))),
    ("atanh", {"x": np.tanh(GRID)}, lambda: torch.atanh(torch.tanh(t(GRID)))),
    ("sign", {"x": np.float32([-2, 0, 3])}, lambda: np.float32([-1, 0, 1])),
]
ACTIVATIONS: list[Case] = [
    ("gelu", {"x": LINE, "mode": "EXACT"}, lambda: F.gelu(t(LINE))),
    ("gelu", {"x": LINE, "mode": "TANH_APPROXIMATION"}, lambda: F.gelu(t(LINE), approximate="tanh")),
    ("gelu", {"x": LINE, "mode": "SIGMOID_APPROXIMATION"}, lambda: t(LINE) * torch.sigmoid(1.702 * t(LINE))),
    ("silu", {"x": LINE}, lambda: F.silu(t(LINE))),
    ("relu6", {"x": LINE * 9}, lambda: F.relu6(t(LINE * 9))),
    ("leaky_relu", {"x": LINE, "alpha": np.float32(0.1)}, lambda: F.leaky_relu(t(LINE), 0.1)),
    ("prelu", {"x": IMAGE, "alpha": np.float32([0, 1, 2, 3])}, lambda: F.prelu(t(IMAGE), torch.arange(4.0))),
    ("elu", {"x": LINE, "alpha": np.float32(0.7)}, lambda: F.elu(t(LINE), 0.7)),
    ("sigmoid_hard", {"x": LINE, "alpha": 1 / 6, "beta": 0.5}, lambda: F.hardsigmoid(t(LINE))),
    ("softplus", {"x": LINE * 40}, lambda: F.softplus(t(LINE * 40))),
    ("softsign", {"x": LINE}, lambda: F.softsign(t(LINE))),
    ("scaled_tanh", {"x": LINE, "alpha": 2.0, "beta": 0.5}, lambda: 2 * torch.tanh(t(LINE) / 2)),
    ("clamped_relu", {"x": LINE, "alpha": 0.1, "beta": 1.0}, lambda: F.leaky_relu(t(LINE), 0.1).clamp(max=1)),
    ("linear_activation", {"x": LINE, "alpha": 2.0, "beta": 1.0}, lambda: t(LINE) * 2 + 1),
    ("thresholded_relu", {"x": LINE, "alpha": 0.5}, lambda: F.threshold(t(LINE), 0.5, 0.0)),
    ("softmax", {"x": GRID * 50, "axis": np.int32(0)}, lambda: torch.softmax(t(GRID * 50), 0)),
    (
        "softplus_parametric",
        {"x": IMAGE, "alpha": np.full(4, 0.5, np.float32), "beta": np.full(4, 2, np.float32)},
        lambda: F.softplus(t(IMAGE), beta=2.0),
    ),
]
CASES = [*ELEMENTWISE, *ACTIVATIONS]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_an_operation_computes_what_it_is_documented_to(case):
    check(case)
