"""The compensators by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from sdk_pruning.compensators.compensated import Compensated
from sdk_pruning.compensators.delta import delta
from sdk_pruning.compensators.least_squares import least_squares
from sdk_pruning.moments import Moments
from sdk_runtimes.errors import UnknownChoiceError


class Compensator(Protocol):
    """New weights for the columns of a layer that stay."""

    def __call__(
        self,
        weight: Tensor,
        kept_columns: Tensor,
        moments: Moments,
        *,
        centred: bool,
        taps: int,
        prior: Tensor | None = None,
    ) -> Compensated:
        """Compensates.

        Args:
            weight: float64 (m, N).
            kept_columns: int64, sorted, whole channels.
            moments: of the dense features and of those that the pruned network has.
            centred: the mean is the bias's, or a batch norm's that is re-estimated.
            taps: columns of one input channel.
            prior: how much each column varied on data that are not seen here, (N,); holds weights to the old.
        """
        ...


def none(
    weight: Tensor,
    kept_columns: Tensor,
    moments: Moments,  # noqa: ARG001 - a Compensator
    *,
    centred: bool,  # noqa: ARG001 - likewise
    taps: int = 1,  # noqa: ARG001 - likewise
    prior: Tensor | None = None,  # noqa: ARG001 - likewise
) -> Compensated:
    """The weights as they were."""
    return Compensated(weight[:, kept_columns], torch.zeros(len(weight), dtype=weight.dtype), 0.0)


COMPENSATORS: Mapping[str, Compensator] = MappingProxyType(
    {"ls": least_squares, "delta": delta, "none": none}
)


def find_compensator(name: str) -> Compensator:
    """A compensator of the table.

    Raises:
        UnknownChoiceError: no such compensator; lists those there are.
    """
    if name not in COMPENSATORS:
        raise UnknownChoiceError("compensation", name, COMPENSATORS)
    return COMPENSATORS[name]
