"""What the front door hands to every target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sdk_runtimes.specs import SymbolRange, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from torch.export import ExportedProgram

Reference = Callable[["Arrays"], "dict[str, np.ndarray[Any, Any]]"]
Arrays = Mapping[str, "np.ndarray[Any, Any]"]


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
        keep_fp32: module paths whose computation stays in fp32 whatever the precision asked for.
    """

    name: str
    exported: "ExportedProgram"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    symbols: tuple[SymbolRange, ...]
    samples: Arrays
    reference: "Reference"
    keep_fp32: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CapturedOnnx:
    """An ONNX file that somebody else exported, held to what it computes in fp32 on ONNX Runtime.

    Attributes:
        name: what the program is called in the bundle.
        file: the ONNX file, checked against our limits.
        inputs: by name.
        outputs: by name.
        symbols: ranges of the symbols in `inputs`.
        samples: one array an input.
        reference: the file as given, in fp32 on ONNX Runtime.
        keep_fp32: node names that stay in fp32.
    """

    name: str
    file: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    symbols: tuple[SymbolRange, ...]
    samples: Arrays
    reference: "Reference"
    keep_fp32: frozenset[str] = frozenset()


Source = Captured | CapturedOnnx


class Write(Protocol):
    """Lowers a captured network and writes its files."""

    def __call__(self, captured: Any, precision: str, folder: Path) -> tuple[str, ...]:
        """Writes into `folder` and returns the paths relative to it, the one an engine opens first.

        Args:
            captured: `Captured`, or for targets that say so in the table also `CapturedOnnx`.
            precision: one of the target's.
            folder: an existing folder.

        Raises:
            LoweringError: an op or precision that the target cannot express.
        """
        ...
