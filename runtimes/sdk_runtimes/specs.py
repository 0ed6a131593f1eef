"""What a program takes and gives, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

# An int, a symbol ("batch"), or, in outputs only, an expression over symbols ("2*batch").
Dim = int | str

DTYPES: Mapping[str, np.dtype] = MappingProxyType(
    {
        name: np.dtype(name)
        for name in (
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float16",
            "float32",
            "float64",
        )
    }
)

STRICT = {"extra": "forbid", "strict": True}
"""pydantic's configuration for every dataclass of the manifest: no unknown keys, no coercion. A plain dict,
because pydantic takes any other mapping for a class of its version 1, and warns."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: the parameter name of `forward` (nested ones joined with a dot), or the output's key.
        dtype: a key of `DTYPES`; how it crosses the border, whatever the precision inside.
        shape: one `Dim` an axis.
    """

    __pydantic_config__ = STRICT

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    @property
    def is_static(self) -> bool:
        """Whether every axis has a fixed size."""
        return all(isinstance(dim, int) for dim in self.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class SymbolRange:
    """The sizes a symbolic axis may have: from minimum to maximum, both included, in steps."""

    __pydantic_config__ = STRICT

    symbol: str
    minimum: int
    maximum: int
    step: int = 1


@dataclass(frozen=True)
class ProgramSpec:
    """One graph with its weights, lowered for one target.

    Attributes:
        name: the network's name, unique together with `target` within a bundle.
        target: the format ("onnx", "openvino", "coreml", "tensorrt").
        precision: what it computes in ("fp32", "fp16", "bf16").
        inputs: in the order of `forward`.
        outputs: in the order of the model's outputs.
        symbols: the range of every symbol that `inputs` use.
        files: paths inside the bundle; the first is the one an engine opens.
        weights_bytes: size of the weights as they lie in `files`.
        activations_bytes: peak of live intermediate tensors at the largest sample, in fp32.
        flops: floating-point operations of one run at the sample shapes (a multiply-add counts two).
        options: what the backend must be told, as data ("profile" shapes, …).
    """

    __pydantic_config__ = STRICT

    name: str
    target: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: tuple[str, ...]
    symbols: tuple[SymbolRange, ...] = ()
    weights_bytes: int = 0
    activations_bytes: int = 0
    flops: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """`name.target`, the key of quality records and caches."""
        return f"{self.name}.{self.target}"

    @property
    def entry(self) -> str:
        """The file an engine opens."""
        return self.files[0]

    @property
    def is_static(self) -> bool:
        """Whether no input has a symbolic axis."""
        return all(spec.is_static for spec in self.inputs)
