"""What the front door hands to every target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sdk_runtimes.specs import SymbolRange, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from torch.export import ExportedProgram

Arrays = Mapping[str, "np.ndarray"]


@dataclass(frozen=True)
class Captured:
    """A traced network with its names, and the truth it is held to.

    Attributes:
        name: what the program is called in the bundle.
        exported: the traced graph, after our passes; flat user inputs and outputs in the order of
            `inputs` and `outputs`.
        inputs: flat inputs by name.
        outputs: flat outputs by name.
        symbols: ranges of the symbols in `inputs`.
        samples: one array an input, the caller's sample inputs.
        reference: eager fp32 on arrays by input name, arrays by output name back. The truth.
    """

    name: str
    exported: "ExportedProgram"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    symbols: tuple[SymbolRange, ...]
    samples: Arrays
    reference: Callable[[Arrays], "dict[str, np.ndarray]"]


class Write(Protocol):
    """Lowers a captured network and writes its files."""

    def __call__(self, captured: Captured, precision: str, folder: Path) -> tuple[str, ...]:
        """Writes into `folder` and returns the paths relative to it, the one an engine opens first.

        Raises:
            LoweringError: an op or precision that the target cannot express.
        """
        ...
