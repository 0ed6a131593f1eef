"""An ONNX file as plain data: graphs, nodes, functions; every field looked at on the way."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sdk_runtimes import onnx_schema
from sdk_runtimes.errors import UnsafeBundleError
from sdk_runtimes.limits import Limits
from sdk_runtimes.onnx_ops import domain_name
from sdk_runtimes.onnx_schema import ATTRIBUTE_KINDS, DATA_TYPES
from sdk_runtimes.onnx_tensors import MAX_RANK, ExternalFiles, Tensor, read_tensor
from sdk_runtimes.protobuf_wire import Span, Wire, signed

FunctionKey = tuple[str, str, str]  # domain, name, overload


class Attribute(NamedTuple):
    """An attribute: `kind` is the field of AttributeProto that holds it; `value` is None where not needed."""

    kind: str
    value: Any
    reference: str  # the function's attribute that is meant, else empty


class Node(NamedTuple):
    """One call of an operator or a function."""

    domain: str
    op: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]

    @property
    def graphs(self) -> tuple["Graph", ...]:
        """The bodies it holds."""
        found: list[Graph] = []
        for attribute in self.attributes.values():
            found.extend(attribute.value if attribute.kind in ("g", "graphs") else ())
        return tuple(found)


class Graph(NamedTuple):
    """A graph or a body: `inputs` maps names to their fixed shape and bits, None where it is not fixed."""

    nodes: tuple[Node, ...]
    initializers: dict[str, Tensor]
    inputs: dict[str, Tensor | None]
    outputs: tuple[str, ...]


class Function(NamedTuple):
    """A model-local function."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    defaults: dict[str, Attribute]


class Model(NamedTuple):
    """A whole file."""

    graph: Graph
    functions: dict[FunctionKey, Function]
    domains: tuple[str, ...]


@dataclass
class Reader:
    """What reading shares: the bytes, the files that weights may lie in, the caps."""

    wire: Wire
    files: ExternalFiles
    limits: Limits
    nodes: int = field(default=0)

    def model(self, span: Span) -> Model:
        """A ModelProto.

        Raises:
            BundleError: not one that is allowed.
        """
        message = self.wire.read(span, onnx_schema.MODEL, "the model")
        if "graph" not in message or not message.get("ir_version") or "training_info" in message:
            raise UnsafeBundleError(
                "the file is no ONNX model for inference", why="no graph, no IR version, or training"
            )
        domains = tuple(self._opset(item) for item in message.get("opset_import", []))
        functions: dict[FunctionKey, Function] = {}
        for item in message.get("functions", []):
            key, function = self._function(item)
            if key in functions:
                raise UnsafeBundleError(f"function {key} is defined twice")
            functions[key] = function
        return Model(self._graph(message["graph"], 1), functions, domains)

    def _opset(self, span: Span) -> str:
        return domain_name(self._text(self.wire.read(span, onnx_schema.OPSET, "an opset"), "domain"))

    def _text(self, message: dict[str, Any], name: str) -> str:
        return self.wire.text(message[name], f"a {name}") if name in message else ""

    def _texts(self, spans: list[Span]) -> tuple[str, ...]:
        return tuple(self.wire.text(span, "a name") for span in spans)

    def _graph(self, span: Span, depth: int) -> Graph:
        if depth > self.limits.graph_depth:
            raise UnsafeBundleError(f"graphs are nested deeper than {self.limits.graph_depth}")
        message = self.wire.read(span, onnx_schema.GRAPH, "a graph")
        if "sparse_initializer" in message:
            raise UnsafeBundleError(
                "a graph has sparse initializers", why="their dense size is not bounded by the file"
            )
        initializers: dict[str, Tensor] = {}
        for item in message.get("initializer", []):
            name, tensor = self._tensor(item)
            if name in initializers:
                raise UnsafeBundleError(f"initializer {name[:80]!r} is defined twice")
            initializers[name] = tensor
        for item in message.get("value_info", []):
            self._value_info(item)
        inputs = dict(self._value_info(item) for item in message.get("input", []))
        outputs = tuple(self._value_info(item)[0] for item in message.get("output", []))
        nodes = tuple(self._node(item, depth) for item in message.get("node", []))
        return Graph(nodes, initializers, inputs, outputs)

    def _tensor(self, span: Span) -> tuple[str, Tensor]:
        return read_tensor(self.wire, span, self.files, self.limits)

    def _node(self, span: Span, depth: int) -> Node:
        self.nodes += 1
        if self.nodes > self.limits.graph_nodes:
            raise UnsafeBundleError(f"the file has more than {self.limits.graph_nodes} nodes")
        message = self.wire.read(span, onnx_schema.NODE, "a node")
        attributes: dict[str, Attribute] = {}
        for item in message.get("attribute", []):
            name, attribute = self._attribute(item, depth)
            if name in attributes:
                raise UnsafeBundleError(f"attribute {name[:80]!r} of a node is given twice")
            attributes[name] = attribute
        return Node(
            domain_name(self._text(message, "domain")),
            self._text(message, "op_type"),
            self._text(message, "overload"),
            self._texts(message.get("input", [])),
            self._texts(message.get("output", [])),
            attributes,
        )

    def _attribute(self, span: Span, depth: int) -> tuple[str, Attribute]:
        message = self.wire.read(span, onnx_schema.ATTRIBUTE, "an attribute")
        name, reference = self._text(message, "name"), self._text(message, "ref_attr_name")
        present = [kind for kind in ATTRIBUTE_KINDS.values() if kind in message]
        declared = ATTRIBUTE_KINDS.get(message.get("type", 0), present[0] if present else "")
        if "type" in message and message["type"] not in ATTRIBUTE_KINDS:
            raise UnsafeBundleError(f"attribute {name[:80]!r} has the type {message['type']}")
        if any(kind != declared for kind in present) or (reference and present):
            raise UnsafeBundleError(f"attribute {name[:80]!r} of type {declared!r} holds {present}")
        read = _ATTRIBUTE_READERS.get(declared)
        value = read(self, message[declared], depth) if read and declared in message else None
        return name, Attribute(declared, value, reference)

    def _function(self, span: Span) -> tuple[FunctionKey, Function]:
        message = self.wire.read(span, onnx_schema.FUNCTION, "a function")
        key = (
            domain_name(self._text(message, "domain")),
            self._text(message, "name"),
            self._text(message, "overload"),
        )
        for item in message.get("opset_import", []):
            self._opset(item)
        for item in message.get("value_info", []):
            self._value_info(item)
        return key, Function(
            self._texts(message.get("input", [])),
            self._texts(message.get("output", [])),
            tuple(self._node(item, 1) for item in message.get("node", [])),
            dict(self._attribute(item, 1) for item in message.get("attribute_proto", [])),
        )

    def _value_info(self, span: Span) -> tuple[str, Tensor | None]:
        message = self.wire.read(span, onnx_schema.VALUE_INFO, "a value")
        name = self._text(message, "name")
        return name, self._type(message["type"], name, 1) if "type" in message else None

    def _type(self, span: Span, name: str, depth: int) -> Tensor | None:
        if depth > self.limits.graph_depth:
            raise UnsafeBundleError(f"the type of {name[:80]!r} is nested too deep")
        message = self.wire.read(span, onnx_schema.TYPE, f"the type of {name[:80]!r}")
        for kind in ("sequence_type", "optional_type"):
            if kind in message:
                inner = self.wire.read(message[kind], onnx_schema.SEQUENCE_TYPE, f"the type of {name[:80]!r}")
                if "elem_type" in inner:
                    self._type(inner["elem_type"], name, depth + 1)
        return self._tensor_type(message["tensor_type"], name) if "tensor_type" in message else None

    def _tensor_type(self, span: Span, name: str) -> Tensor | None:
        message = self.wire.read(span, onnx_schema.TENSOR_TYPE, f"the type of {name[:80]!r}")
        data_type = message.get("elem_type", 0)
        if data_type and data_type not in DATA_TYPES:
            raise UnsafeBundleError(f"{name[:80]!r} has the data type {data_type}")
        if "shape" not in message or not data_type:
            return None
        shape = self.wire.read(message["shape"], onnx_schema.SHAPE, f"the shape of {name[:80]!r}")
        dims = [self.wire.read(item, onnx_schema.DIM, "a dim") for item in shape.get("dim", [])]
        sizes = [signed(dim["dim_value"]) for dim in dims if "dim_value" in dim]
        bits = DATA_TYPES[data_type][0]
        known = math.prod(max(size, 1) for size in sizes[:MAX_RANK]) * bits // 8
        if len(dims) > MAX_RANK or min(sizes, default=0) < 0 or known > self.limits.tensor_bytes:
            raise UnsafeBundleError(
                f"{name[:80]!r} has the shape {sizes[:16]}",
                why=f"at most {self.limits.tensor_bytes} bytes and {MAX_RANK} axes are allowed",
            )
        return Tensor(tuple(sizes), bits, None) if len(sizes) == len(dims) else None


_ATTRIBUTE_READERS: dict[str, Callable[[Reader, Any, int], Any]] = {
    "i": lambda _, value, __: signed(value),
    "ints": lambda reader, value, _: reader.wire.integers(value, "an attribute", limit=1 << 22),
    "t": lambda reader, value, _: reader._tensor(value)[1],
    "tensors": lambda reader, value, _: tuple(reader._tensor(item)[1] for item in value),
    "g": lambda reader, value, depth: (reader._graph(value, depth + 1),),
    "graphs": lambda reader, value, depth: tuple(reader._graph(item, depth + 1) for item in value),
    "tp": lambda reader, value, _: reader._type(value, "an attribute", 1),
    "type_protos": lambda reader, value, _: tuple(reader._type(item, "an attribute", 1) for item in value),
}
