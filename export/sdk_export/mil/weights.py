"""Reads `weight.bin` of a Core ML package as it lies on disk.

The file (MIL storage format, version 2 and 3) starts with 64 bytes: count (u32), version (u32), zeros. Each
tensor has 64 bytes of metadata, on a 64-byte boundary: sentinel 0xDEADBEEF (u32), data type (u32), size in
bytes (u64), offset of the data (u64), padding in bits after the last element (u64), zeros.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdk_export.mil.dtypes import Dtype
from sdk_runtimes.errors import IntegrityError

Array = npt.NDArray[Any]

_SENTINEL = 0xDEADBEEF
_METADATA = np.dtype(
    [("sentinel", "<u4"), ("dtype", "<u4"), ("size", "<u8"), ("offset", "<u8"), ("padding", "<u8")]
)


def open_blob(path: Path) -> Array:
    """Maps a weight file into memory, copy on write: nothing is read before it is used."""
    return np.memmap(path, dtype=np.uint8, mode="c")


def read_tensor(blob: Array, offset: int, dtype: Dtype, shape: tuple[int, ...]) -> Array:
    """One tensor of a weight file, without a copy where its elements fill whole bytes.

    Args:
        blob: the file's bytes.
        offset: where the tensor's metadata starts.
        dtype: what the program says it holds.
        shape: what the program says its shape is.

    Raises:
        IntegrityError: the metadata is not there, or contradicts the program.
    """
    if offset + _METADATA.itemsize > blob.size:
        raise IntegrityError(
            f"weight file ends at byte {blob.size}, before the tensor at {offset}",
            why="the file is truncated",
            fix="export again",
        )
    metadata = blob[offset : offset + _METADATA.itemsize].view(_METADATA)[0]
    size = math.ceil(math.prod(shape) * dtype.bits / 8)
    found = (int(metadata["sentinel"]), int(metadata["dtype"]), int(metadata["size"]))
    start = int(metadata["offset"])
    if found != (_SENTINEL, dtype.blob, size) or start + size > blob.size:
        raise IntegrityError(
            f"weight file, byte {offset}: sentinel, type and size are {found[0]:#x}, {found[1]}, {found[2]}",
            why=f"the program expects {_SENTINEL:#x}, {dtype.blob} ({dtype.name}), {size} within {blob.size}",
            fix="export again",
        )
    return from_bytes(blob[start : start + size], dtype, shape)


def from_bytes(raw: Array, dtype: Dtype, shape: tuple[int, ...]) -> Array:
    """Little-endian bytes as an array; elements below a byte are unpacked, lowest bits first."""
    if not dtype.is_packed:
        return np.asarray(raw.view(dtype.numpy)).reshape(shape)
    values = unpacked(raw, dtype.bits, math.prod(shape))
    if np.issubdtype(dtype.numpy, np.signedinteger):
        sign = 1 << (dtype.bits - 1)
        values = (values ^ sign).astype(np.int8) - np.int8(sign)
    return np.asarray(values).reshape(shape)


def unpacked(raw: Array, bits: int, count: int) -> Array:
    """The first `count` unsigned elements of a few bits each, which follow each other across bytes."""
    each = np.unpackbits(raw, bitorder="little", count=count * bits).reshape(count, bits)
    return np.asarray((each << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8))
