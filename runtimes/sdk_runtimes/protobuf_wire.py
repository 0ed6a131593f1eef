"""Protobuf's wire format, read in place: no copies, no schema compiler, no surprises.

Stricter than protobuf itself, which merges a singular message that occurs twice and skips what it does not
know: two readers then see two things. Here a second occurrence, an unknown field, a group, an overlong or
truncated varint is an error. Source: protobuf.dev, "Encoding".
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sdk_runtimes.errors import UnsafeBundleError

Buffer = bytes | mmap.mmap
Span = tuple[int, int]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MASK64 = (1 << 64) - 1
# Deletes all bytes but the last of every varint: what is left counts them.
_CONTINUED = bytes(range(128, 256))
_PIECE = 1 << 20


class Field(NamedTuple):
    """One field of a message: its name, its wire type, whether it may occur more than once."""

    name: str
    wire: int
    repeated: bool = False


Message = Mapping[int, Field]


@dataclass
class Wire:
    """A buffer and how many more fields may be read from it."""

    buffer: Buffer
    fields_left: int

    def read(self, span: Span, message: Message, what: str) -> dict[str, Any]:
        """One message as a dict: an int for a varint, a `Span` for anything else, a list where repeated.

        Raises:
            UnsafeBundleError: not this message.
        """
        result: dict[str, Any] = {}
        buffer, (position, end) = self.buffer, span
        while position < end:
            self.fields_left -= 1
            if self.fields_left < 0:
                raise UnsafeBundleError(f"{what} has too many fields")
            key = buffer[position]
            if key < 0x80:
                position += 1
            else:
                key, position = self.varint(position, end)
            field = message.get(key >> 3)
            if field is None:
                raise UnsafeBundleError(f"{what} has an unknown field {key >> 3}")
            value, position = self._value(key & 7, position, end, what)
            if key & 7 != field.wire and not (field.repeated and key & 7 == LENGTH):
                raise UnsafeBundleError(f"{what} has the wire type {key & 7} in {field.name!r}")
            if field.repeated:
                result.setdefault(field.name, []).append(value)
            elif field.name in result:
                raise UnsafeBundleError(f"{what} has {field.name!r} twice")
            else:
                result[field.name] = value
        return result

    def _value(self, wire: int, position: int, end: int, what: str) -> tuple[int | Span, int]:
        if wire == VARINT:
            return self.varint(position, end)
        if wire == LENGTH:
            length, position = self.varint(position, end)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise UnsafeBundleError(f"{what} has the unknown wire type {wire}")
        if length > end - position:
            raise UnsafeBundleError(
                f"{what} is truncated", why=f"{length} bytes of {end - position} are missing"
            )
        return (position, position + length), position + length

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """An unsigned 64-bit integer and the position after it."""
        value = shift = 0
        while position < end:
            byte = self.buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > _MASK64:
                    break
                return value, position
            shift += 7
            if shift > 63:
                break
        raise UnsafeBundleError(f"a truncated or overlong varint at byte {position}")

    def text(self, span: Span, what: str, *, limit: int = 4096) -> str:
        """A short UTF-8 string."""
        if span[1] - span[0] > limit:
            raise UnsafeBundleError(f"{what} has {span[1] - span[0]} bytes, more than {limit}")
        try:
            return self.buffer[span[0] : span[1]].decode()
        except UnicodeDecodeError as error:
            raise UnsafeBundleError(f"{what} is not UTF-8", why=str(error)) from error

    def integers(self, items: list[int | Span], what: str, *, limit: int = 1 << 16) -> tuple[int, ...]:
        """Signed 64-bit integers of a repeated field, packed or not."""
        values: list[int] = []
        for item in items:
            if isinstance(item, int):
                values.append(item)
                continue
            position, end = item
            if end - position > 10 * limit:
                raise UnsafeBundleError(f"{what} has more than {limit} values")
            while position < end:
                value, position = self.varint(position, end)
                values.append(value)
        if len(values) > limit:
            raise UnsafeBundleError(f"{what} has more than {limit} values")
        return tuple(signed(value) for value in values)

    def count_varints(self, items: list[int | Span]) -> int:
        """How many integers a repeated field holds, without making any of them."""
        loose = sum(isinstance(item, int) for item in items)
        packed = (item for item in items if not isinstance(item, int))
        return loose + sum(
            len(piece.translate(None, _CONTINUED)) for item in packed for piece in self.pieces(item)
        )

    def pieces(self, span: Span) -> Iterator[bytes]:
        """The bytes of a span, a little at a time."""
        for start in range(span[0], span[1], _PIECE):
            yield self.buffer[start : min(start + _PIECE, span[1])]


def signed(value: int) -> int:
    """An int64 as its varint holds it."""
    return value - (1 << 64) if value >> 63 else value
