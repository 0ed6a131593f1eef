"""What prunes by latency needs to be able to time. The facade brings it: stages do not know sessions."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn


class Measured(Protocol):
    """One network's time."""

    @property
    def ms(self) -> float:
        """Milliseconds."""
        ...

    @property
    def ratio(self) -> float:
        """Speed-up over the dense network."""
        ...


class Meter(Protocol):
    """Times networks and layers on one target and device."""

    @property
    def device(self) -> str:
        """Such as "onnxruntime:cpu"."""
        ...

    @property
    def label(self) -> str:
        """Target and device, for the report."""
        ...

    @property
    def dense_ms(self) -> float:
        """Of the dense network."""
        ...

    def networks(self, networks: Mapping[str, nn.Module]) -> Mapping[str, Measured]:
        """Times whole networks, by turns with the dense one."""
        ...

    def layers(self, layers: Sequence[tuple[nn.Module, Tensor]]) -> list[float]:
        """Milliseconds of layers on their own."""
        ...
