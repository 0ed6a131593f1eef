"""XML as a stranger may send it: elements, attributes and text under limits, and nothing else.

The tree is built on expat directly: a document type, and with it every entity and every reference outside,
is an error before any of it is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.parsers import expat

from sdk_runtimes.errors import UnsafeBundleError

_PIECE = 1 << 16
_TEXT = 256  # characters of an element that are kept: numbers are shorter
_ENCODINGS = ("utf-8", "ascii", "us-ascii")


@dataclass(slots=True)
class Element:
    """One element; `text` is how that begins which stands in it beside its children."""

    tag: str
    attributes: Mapping[str, str]
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> list["Element"]:
        """Its children of a tag."""
        return [child for child in self.children if child.tag == tag]


def parse_xml(file: BinaryIO, *, name: str, max_bytes: int, max_elements: int, max_depth: int) -> Element:
    """Reads a document.

    Args:
        file: opened for reading bytes.
        name: what it is called in messages.
        max_bytes: of the document.
        max_elements: in the document.
        max_depth: of elements within each other.

    Raises:
        UnsafeBundleError: not well-formed, not UTF-8, above a limit; a DOCTYPE, an entity or a processing
            instruction.
    """
    builder = _Builder(name, max_elements, max_depth)
    parser = builder.parser()
    read = 0
    try:
        while piece := file.read(_PIECE):
            read += len(piece)
            if read > max_bytes:
                raise UnsafeBundleError(f"{name} is larger than {max_bytes} bytes")
            if b"\0" in piece:  # UTF-16, which expat reads when a byte order mark says so
                raise UnsafeBundleError(f"{name} is not UTF-8")
            parser.Parse(piece, False)  # noqa: FBT003 -- its parameters have no names
        parser.Parse(b"", True)  # noqa: FBT003 -- likewise
    # ValueError: bytes that are no text.
    except (expat.ExpatError, ValueError) as error:
        raise UnsafeBundleError(f"{name} is not well-formed XML", why=str(error)) from error
    return builder.root.children[0]


class _Builder:
    def __init__(self, name: str, max_elements: int, max_depth: int) -> None:
        self.root = Element("", {})
        self._name = name
        self._open = [self.root]
        self._elements_left = max_elements
        self._max_depth = max_depth

    def parser(self) -> expat.XMLParserType:
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = lambda _: self._open.pop()
        parser.CharacterDataHandler = self._text
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._refuse("a DOCTYPE")
        parser.EntityDeclHandler = self._refuse("an entity")
        parser.ProcessingInstructionHandler = self._refuse("a processing instruction")
        return parser

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._elements_left -= 1
        if self._elements_left < 0 or len(self._open) > self._max_depth:
            raise UnsafeBundleError(
                f"{self._name} has too many elements, or nests them too deep",
                why=f"at most {self._max_depth} levels",
            )
        element = Element(tag, attributes)
        self._open[-1].children.append(element)
        self._open.append(element)

    def _text(self, data: str) -> None:
        element = self._open[-1]
        if not data.isspace() and len(element.text) < _TEXT:
            element.text = (element.text + data)[:_TEXT]

    def _declaration(self, version: str, encoding: str | None, _: int) -> None:
        # Another parser may believe the declaration that we overrule.
        if version != "1.0" or (encoding or "utf-8").lower() not in _ENCODINGS:
            raise UnsafeBundleError(
                f"{self._name} is XML {version[:20]} in {str(encoding)[:40]}",
                why="only 1.0 in UTF-8 is read",
            )

    def _refuse(self, what: str) -> Callable[..., None]:
        def handler(*_: object) -> None:
            raise UnsafeBundleError(f"{self._name} holds {what}", why="no file we read needs one")

        return handler
