"""What the tests of the evaluator's operations share: inputs, and the comparison."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sdk_export.mil.table import OPS

RNG = np.random.default_rng(0)

Case = tuple[str, dict[str, Any], Callable[..., Any]]
"""An operation, its arguments, and what it must give."""


def noise(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def t(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


LINE, GRID, IMAGE, VOLUME = noise(7) * 3, noise(3, 8), noise(2, 4, 7, 9), noise(1, 2, 5, 4, 6)
POSITIVE = np.abs(GRID) + 0.1
PICKS = RNG.integers(0, 3, (2, 8)).astype(np.int32)


def ids(cases: list[Case]) -> list[str]:
    return [f"{case[0]}-{i}" for i, case in enumerate(cases)]


def check(case: Case) -> None:
    name, arguments, truth = case
    got, wanted = OPS[name](**arguments), truth()
    pairs = zip(got, wanted, strict=True) if isinstance(got, tuple) else [(got, wanted)]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=2e-5, atol=2e-6)
