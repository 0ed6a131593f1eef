"""What a selector sees: units that may go, and the layers that would miss them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Consumer:
    """A layer that reads the features in question: y = W u (+ b).

    A k × k convolution is a linear layer over its patches (im2col), so N is channels × k², columns ordered
    (channel, tap) as in `weight.flatten(1)`.

    Attributes:
        name: of its weight, for messages.
        weight: W, float64 (m, N).
        second: E[u uᵀ], float64 (N, N); the covariance where the bias or the batch norm after it takes
            the mean up.
        columns: unit -> the columns of W that read it, int64 (n_i,); empty where this layer does not read it.
            Columns of no unit always stay, and help to compensate.
        taps: k², the columns of one input channel.
    """

    name: str
    weight: Tensor
    second: Tensor
    columns: tuple[Tensor, ...]
    taps: int = 1


@dataclass(frozen=True)
class Curve:
    """In which order units go, and what is lost at every width.

    Attributes:
        order: all units, the first to go first.
        error: relative error after k rounds, k = 0 … rounds: the mean over consumers of E‖y − ŷ‖² / E‖y‖²
            after the best linear compensation. 1 − error is the subset fidelity of what stays.
        round_units: units that leave in one round: 1, or the number of rows where every row must keep as many
            as the others (the dims of attention heads).
    """

    order: tuple[int, ...]
    error: tuple[float, ...]
    round_units: int = 1

    def removed(self, rounds: int) -> tuple[int, ...]:
        """The units that are gone after some rounds, sorted."""
        return tuple(sorted(self.order[: rounds * self.round_units]))


Rows = Sequence[int] | None
"""unit -> row, where every row must keep as many units as the others; None where there are no rows."""
