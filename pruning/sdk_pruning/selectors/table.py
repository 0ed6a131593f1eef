"""The selectors by name."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_pruning.selectors.energy import energy
from sdk_pruning.selectors.l2 import l2
from sdk_pruning.selectors.obs import obs
from sdk_pruning.selectors.random_order import random_order
from sdk_pruning.selectors.rowsum import rowsum
from sdk_pruning.selectors.singleton import singleton
from sdk_pruning.selectors.union import union
from sdk_runtimes.errors import UnknownChoiceError


class Selector(Protocol):
    """Puts the units of a group into an order."""

    def __call__(self, consumers: Sequence[Consumer], rows: Rows, seed: int) -> Curve:
        """The order in which units go, with the exact error at every width.

        Args:
            consumers: the layers that read the units, all with the same number of units.
            rows: unit -> row; None where there are no rows.
            seed: for selectors that draw.
        """
        ...


SELECTORS: Mapping[str, Selector] = MappingProxyType(
    {
        "obs": obs,
        "singleton": singleton,
        "rowsum": rowsum,
        "union": union,
        "energy": energy,
        "l2": l2,
        "random": random_order,
    }
)


def find_selector(name: str) -> Selector:
    """A selector of the table.

    Raises:
        UnknownChoiceError: no such selector; lists those there are.
    """
    if name not in SELECTORS:
        raise UnknownChoiceError("selector", name, SELECTORS)
    return SELECTORS[name]
