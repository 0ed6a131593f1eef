"""Tensors of an ONNX file: whether their data is where they say, and as much as they say."""

import math
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sdk_runtimes.bundle_files import is_plain_component
from sdk_runtimes.errors import IntegrityError, UnsafeBundleError
from sdk_runtimes.feeds import Array
from sdk_runtimes.limits import Limits
from sdk_runtimes.onnx_schema import DATA_TYPES, ENTRY, STRING, TENSOR
from sdk_runtimes.protobuf_wire import Span, Wire

SMALL = 64
"""Tensors of at most so many elements have their values read: they may be shapes."""

_TYPED_DATA = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
_EXTERNAL = 1  # TensorProto.DataLocation
_NUMBER = re.compile(r"[0-9]{1,18}")
# TensorProto.DataType -> numpy, for those whose values can be part of a shape
_READABLE = {1: "<f4", 6: "<i4", 7: "<i8", 9: "|b1", 11: "<f8"}
MAX_RANK = 64


@dataclass(frozen=True)
class Tensor:
    """What a tensor declares, checked against its data.

    Attributes:
        shape: its dims.
        bits: of an element.
        values: its data, when small, inline and of a type that a shape may be computed from.
    """

    shape: tuple[int, ...]
    bits: int
    values: Array | None


@dataclass
class ExternalFiles:
    """The files that tensors may lie in.

    Attributes:
        folder: where the graph lies.
        allowed: paths below `folder`; None allows any plain one that is a regular file.
        sizes: of the files seen so far.
    """

    folder: Path
    allowed: Collection[str] | None
    sizes: dict[str, int] = field(default_factory=dict)

    def size(self, location: str) -> int:
        """Size of a file that a tensor names.

        Raises:
            UnsafeBundleError: not a plain relative path, not allowed, or a link.
            IntegrityError: it is not there.
        """
        if location not in self.sizes:
            self.sizes[location] = self._look(location)
        return self.sizes[location]

    def _look(self, location: str) -> int:
        components = location.split("/")
        if not all(map(is_plain_component, components)):
            raise UnsafeBundleError(
                f"external data at {location!r}",
                why="weights lie beside the graph: a relative path without '..' or special names",
            )
        if self.allowed is not None and location not in self.allowed:
            raise UnsafeBundleError(
                f"external data at {location!r}", why=f"the graph's files are {sorted(self.allowed)[:5]}"
            )
        path = self.folder
        for component in components:
            path = path / component
            try:
                status = path.lstat()
            except OSError as error:
                raise IntegrityError(f"external data at {location!r} is missing", why=str(error)) from error
            if stat.S_ISLNK(status.st_mode):
                raise UnsafeBundleError(f"external data at {location!r}", why="links are refused")
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeBundleError(f"external data at {location!r} is not a regular file")
        return status.st_size


def read_tensor(wire: Wire, span: Span, files: ExternalFiles, limits: Limits) -> tuple[str, Tensor]:
    """Name and content of a TensorProto.

    Raises:
        BundleError: dims, type and data do not agree; external data outside its file.
    """
    message = wire.read(span, TENSOR, "a tensor")
    name = wire.text(message["name"], "a tensor's name") if "name" in message else ""
    what = f"tensor {name[:80]!r}"
    data_type = message.get("data_type", 0)
    if data_type not in DATA_TYPES or "segment" in message:
        raise UnsafeBundleError(f"{what} has the data type {data_type}, or is a segment of another")
    bits = DATA_TYPES[data_type][0]
    shape = wire.integers(message.get("dims", []), what, limit=MAX_RANK)
    if any(dim < 0 for dim in shape):
        raise UnsafeBundleError(f"{what} has the shape {list(shape)}")
    count = math.prod(shape)
    size = (count * bits + 7) // 8
    if size > limits.tensor_bytes:
        raise UnsafeBundleError(f"{what} has {size} bytes", why=f"at most {limits.tensor_bytes} are allowed")
    _check_source(wire, message, what, count, files)
    values = _values(wire, message, data_type, shape) if count <= SMALL else None
    return name, Tensor(shape, bits, values)


def _check_source(wire: Wire, message: dict[str, Any], what: str, count: int, files: ExternalFiles) -> None:
    bits, typed, per_element = DATA_TYPES[message["data_type"]]
    size = (count * bits + 7) // 8
    present = [name for name in ("raw_data", *_TYPED_DATA, "external_data") if name in message]
    location = message.get("data_location", 0)
    external = location == _EXTERNAL
    if location > _EXTERNAL or external != ("external_data" in message) or len(present) > 1:
        raise UnsafeBundleError(
            f"{what} has its data in {present or 'no place'}", why="it must be in one place"
        )
    if external:
        _check_external(wire, message["external_data"], what, size, files)
        return
    if present == ["raw_data"] and message["data_type"] != STRING:
        start, end = message["raw_data"]
        held, needed = end - start, size
    elif present in ([], [typed]):
        held, needed = _entries(wire, message, typed), math.ceil(count * per_element)
    else:
        raise UnsafeBundleError(f"{what} has its data in {present}", why=f"its type keeps them in {typed!r}")
    if held != needed:
        raise UnsafeBundleError(f"{what} holds {held} of data", why=f"its shape and type need {needed}")


def _entries(wire: Wire, message: dict[str, Any], name: str) -> int:
    items = message.get(name, [])
    if name == "string_data":
        return len(items)
    if name in ("float_data", "double_data"):
        size = sum(end - start for start, end in items)
        width = 4 if name == "float_data" else 8
        return size // width if size % width == 0 else -1
    return wire.count_varints(items)


def _check_external(wire: Wire, entries: list[Span], what: str, size: int, files: ExternalFiles) -> None:
    given: dict[str, str] = {}
    for entry in entries:
        message = wire.read(entry, ENTRY, f"external data of {what}")
        key, value = (
            wire.text(message[part], f"external data of {what}") if part in message else ""
            for part in ("key", "value")
        )
        if key not in _EXTERNAL_KEYS or key in given:
            raise UnsafeBundleError(
                f"external data of {what} has the key {key[:80]!r}", why="unknown, or twice"
            )
        given[key] = value
    offset, length = given.get("offset", "0"), given.get("length", str(size))
    if not (_NUMBER.fullmatch(offset) and _NUMBER.fullmatch(length)):
        raise UnsafeBundleError(f"external data of {what} has offset {offset[:40]!r}, length {length[:40]!r}")
    if int(length) != size:
        raise UnsafeBundleError(
            f"external data of {what} has {length} bytes", why=f"its shape and type need {size}"
        )
    there = files.size(given.get("location", ""))
    if int(offset) + size > there:
        raise UnsafeBundleError(
            f"external data of {what} ends at byte {int(offset) + size} of {given['location']!r}",
            why=f"the file has {there} bytes",
        )


def _values(wire: Wire, message: dict[str, Any], data_type: int, shape: tuple[int, ...]) -> Array | None:
    if data_type not in _READABLE or "external_data" in message:
        return None
    dtype = np.dtype(_READABLE[data_type])
    typed = DATA_TYPES[data_type][1]
    if "raw_data" in message:
        start, end = message["raw_data"]
        return np.frombuffer(wire.buffer[start:end], dtype).reshape(shape)
    if typed in ("float_data", "double_data"):
        data = b"".join(wire.buffer[start:end] for start, end in message.get(typed, []))
        return np.frombuffer(data, dtype).reshape(shape)
    # An int32 entry out of range would raise in numpy: it wraps there, as it does in a native reader.
    integers = np.array(wire.integers(message.get(typed, []), "a tensor"), np.int64)
    return integers.astype(dtype).reshape(shape)
