"""MIL's data types, their numbers in the two file formats and what numpy calls them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sdk_runtimes.errors import LoweringError


@dataclass(frozen=True)
class Dtype:
    """One MIL data type.

    Attributes:
        name: as MIL prints it.
        proto: its number in `MIL.proto`, message `DataType`.
        blob: its number in the header of a weight blob (`BlobDataType`), or 0 where blobs cannot hold it.
        bits: bits an element takes in a file.
        numpy: how an element is held once it is read; below a byte, the next wider type.
    """

    name: str
    proto: int
    blob: int
    bits: int
    numpy: np.dtype[Any]

    @property
    def is_packed(self) -> bool:
        """Whether several elements share a byte."""
        return self.bits < 8 and self.name != "bool"


def _dtype(name: str, proto: int, blob: int, bits: int, held: npt.DTypeLike) -> Dtype:
    return Dtype(name, proto, blob, bits, np.dtype(held))


DTYPES = (
    _dtype("bool", 1, 0, 8, np.bool_),
    _dtype("string", 2, 0, 8, np.object_),
    _dtype("fp16", 10, 1, 16, np.float16),
    _dtype("fp32", 11, 2, 32, np.float32),
    _dtype("fp64", 12, 0, 64, np.float64),
    _dtype("int8", 21, 4, 8, np.int8),
    _dtype("int16", 22, 6, 16, np.int16),
    _dtype("int32", 23, 14, 32, np.int32),
    _dtype("int64", 24, 0, 64, np.int64),
    _dtype("int4", 25, 8, 4, np.int8),
    _dtype("uint8", 31, 3, 8, np.uint8),
    _dtype("uint16", 32, 7, 16, np.uint16),
    _dtype("uint32", 33, 15, 32, np.uint32),
    _dtype("uint64", 34, 0, 64, np.uint64),
    _dtype("uint4", 35, 11, 4, np.uint8),
    _dtype("uint2", 36, 10, 2, np.uint8),
    _dtype("uint1", 37, 9, 1, np.uint8),
    _dtype("uint6", 38, 13, 6, np.uint8),
    _dtype("uint3", 39, 12, 3, np.uint8),
)

_BY_PROTO = {dtype.proto: dtype for dtype in DTYPES}


def from_proto(number: int) -> Dtype:
    """The data type with this number in `MIL.proto`.

    Raises:
        LoweringError: a type this evaluator does not know (fp8, bf16).
    """
    if number not in _BY_PROTO:
        raise LoweringError(
            f"MIL data type number {number} is not one the evaluator knows",
            why=f"it knows {', '.join(dtype.name for dtype in DTYPES)}",
            fix="export with precision 'fp32' or 'fp16'",
        )
    return _BY_PROTO[number]
