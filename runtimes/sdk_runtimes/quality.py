"""How far shipped bytes are from the truth. In numpy: goldens are replayed where there is no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from sdk_runtimes.errors import UnknownChoiceError
from sdk_runtimes.feeds import Array
from sdk_runtimes.manifest import Tolerance

DEFAULT_TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {
        "fp32": Tolerance(rel_rmse=1e-4),
        "fp16": Tolerance(rel_rmse=2e-2),
        "bf16": Tolerance(rel_rmse=2e-2),
    }
)

MAX_PSNR_DB = 200.0  # float64 resolves no more; stands for "equal", since JSON has no infinity


@dataclass(frozen=True)
class Deviation:
    """One output against its truth.

    Attributes:
        rel_rmse: root mean square error over the root mean square of the truth; for integers and
            booleans the share of elements that differ. Infinite when something is not finite.
        max_abs: largest absolute difference.
        cosine: cosine similarity; 1 when both are zero.
        psnr_db: peak signal-to-noise ratio over the truth's own range, capped at `MAX_PSNR_DB`.
        finite: whether the output has neither NaN nor Inf where the truth has none.
    """

    rel_rmse: float
    max_abs: float
    cosine: float
    psnr_db: float
    finite: bool

    def within(self, tolerance: Tolerance) -> bool:
        """Whether this deviation may be shipped. NaN and Inf never may."""
        if not self.finite or not self.rel_rmse <= tolerance.rel_rmse:
            return False
        return tolerance.min_psnr_db is None or self.psnr_db >= tolerance.min_psnr_db


BROKEN = Deviation(rel_rmse=math.inf, max_abs=math.inf, cosine=0.0, psnr_db=0.0, finite=False)


def tolerance_for(precision: str) -> Tolerance:
    """The default tolerance of a precision (DESIGN §5).

    Raises:
        UnknownChoiceError: a precision without a default.
    """
    if precision not in DEFAULT_TOLERANCES:
        raise UnknownChoiceError("precision", precision, DEFAULT_TOLERANCES)
    return DEFAULT_TOLERANCES[precision]


def rms(array: Array) -> float:
    """Root mean square in float64; 0 for an empty array."""
    return math.sqrt(float(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0


def compare(truth: Array, got: Array, *, usual_rms: float = 0.0) -> Deviation:
    """Measures `got` against `truth`.

    Args:
        truth: eager fp32, any shape.
        got: what the shipped bytes computed.
        usual_rms: root mean square of this output on the caller's own samples. A truth that is far
            smaller (all-zero inputs often give zeros and rounding noise) is judged relative to a
            thousandth of it, not to nothing.

    Returns:
        `BROKEN` where the shapes differ or `got` is not finite where the truth is.
    """
    if truth.shape != got.shape:
        return BROKEN
    if not truth.size:
        return Deviation(0.0, 0.0, 1.0, MAX_PSNR_DB, finite=True)
    if truth.dtype.kind in "biu":
        return _compare_discrete(truth, got)
    wanted, given = truth.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    known = np.isfinite(wanted)
    # An infinity that the truth has too (a masked score) is right; any other is not.
    same_holes = np.array_equal(wanted[~known], given[~known], equal_nan=True)
    if not same_holes or not np.isfinite(given[known]).all():
        return BROKEN
    wanted, given = wanted[known], given[known]
    error = rms(given - wanted)
    scale = max(rms(wanted), 1e-3 * usual_rms, float(np.finfo(np.float32).tiny))
    norms = float(np.linalg.norm(wanted) * np.linalg.norm(given))
    return Deviation(
        rel_rmse=error / scale,
        max_abs=float(np.abs(given - wanted).max(initial=0.0)),
        cosine=float(wanted @ given) / norms if norms else float(error == 0.0),
        psnr_db=_psnr_db(float(np.ptp(wanted)) if wanted.size else 0.0, error),
        finite=True,
    )


def _compare_discrete(truth: Array, got: Array) -> Deviation:
    difference = np.abs(truth.astype(np.float64) - got.astype(np.float64))
    differing = float(np.mean(difference != 0))
    return Deviation(
        rel_rmse=differing,
        max_abs=float(difference.max()),
        cosine=1.0 - differing,
        psnr_db=_psnr_db(float(np.ptp(truth.astype(np.float64))), rms(difference)),
        finite=True,
    )


def _psnr_db(value_range: float, error: float) -> float:
    if error == 0.0:
        return MAX_PSNR_DB
    if value_range == 0.0:
        return 0.0
    return min(20.0 * math.log10(value_range / error), MAX_PSNR_DB)
