"""Checks an OpenVINO IR (`.xml` with its `.bin`) before a native loader sees it; needs no openvino.

What is refused: what `safe_xml` refuses; deep nesting; layers outside the known opsets, which extension
libraries would have to bring; constants that are not inside the `.bin`, or not as large as their type and
shape say; tensors above the caps, also those that `Broadcast`, `Tile` … make from constants of the file.

What is not followed: sizes that are computed from constants by other layers than a `Convert`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from sdk_runtimes.bundle_files import open_regular
from sdk_runtimes.errors import IntegrityError, UnsafeBundleError
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits
from sdk_runtimes.safe_xml import Element, parse_xml

_OPSET = re.compile(r"opset([1-9]|1[0-7])")  # of OpenVINO 2026
_NUMBER = re.compile(r"[0-9]{1,18}")
_SIZE = re.compile(r"-1|[0-9]{1,18}")
_LEVELS = 8  # XML elements from one body to the next, at most
_SMALL = 64
_MAX_RANK = 64
_UNSIZED = frozenset({"string", "u3", "u6"})  # not shape times bits

# bits of an element
_BITS: Mapping[str, int] = MappingProxyType(
    {
        "u1": 1,
        "u2": 2,
        **dict.fromkeys(("u4", "i4", "nf4", "f4e2m1"), 4),
        **dict.fromkeys(("boolean", "i8", "u8", "f8e4m3", "f8e5m2", "f8e8m0"), 8),
        **dict.fromkeys(("i16", "u16", "f16", "bf16"), 16),
        **dict.fromkeys(("i32", "u32", "f32"), 32),
        **dict.fromkeys(("i64", "u64", "f64"), 64),
    }
)
_READABLE = MappingProxyType({"i32": "<i4", "i64": "<i8"})
# layer type -> its inputs that hold sizes or factors, of which the product counts
_GROWERS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "Broadcast": (1,),
        "Tile": (1,),
        "RandomUniform": (0,),
        "Interpolate": (1,),
        "OneHot": (1,),
        "Eye": (0, 1),
    }
)


@dataclass(frozen=True)
class _Weights:
    """The `.bin`; its size is 0 where there is none."""

    path: Path
    size: int


@dataclass(frozen=True)
class _Constant:
    element_type: str
    offset: int
    size: int


def check_openvino_file(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> None:
    """Checks an IR under limits; its weights are the `.bin` of the same name.

    Raises:
        IntegrityError: the `.xml` is not there, or the `.bin` that its constants lie in.
        UnsafeBundleError: names what is wrong.
    """
    weights = _weights(path.with_suffix(".bin"))
    with open_regular(path) as file:
        net = parse_xml(
            file,
            name=path.name,
            max_bytes=limits.xml_bytes,
            max_elements=limits.graph_fields,
            max_depth=_LEVELS * limits.graph_depth,
        )
    if net.tag != "net" or net.attributes.get("version") not in ("10", "11"):
        raise UnsafeBundleError(
            f"{path.name} is no OpenVINO IR of version 10 or 11", why=f"its root is {net.tag[:80]!r}"
        )
    try:
        _check_net(net, weights, limits)
    except UnsafeBundleError as error:
        raise UnsafeBundleError(f"{path.name}: {error.what}", why=error.why, fix=error.fix) from error


def _check_net(net: Element, weights: _Weights, limits: Limits) -> None:
    bodies = list(_bodies(net))
    layers = sum(len(layer.children) for body in bodies for layer in body.all("layers"))
    if layers > limits.graph_nodes:
        raise UnsafeBundleError(f"the graph has {layers} layers", why=f"at most {limits.graph_nodes}")
    for body in bodies:
        _check_body(body, weights, limits)


def _weights(path: Path) -> _Weights:
    try:
        with open_regular(path) as file:
            return _Weights(path, file.seek(0, 2))
    except IntegrityError:
        return _Weights(path, 0)  # a graph without constants has none


def _bodies(net: Element) -> Iterator[Element]:
    """The net, and every element below that has layers: bodies of loops and branches."""
    pending = [net]
    while pending:
        element = pending.pop()
        if element.tag == "rt_info":
            continue
        if element.all("layers"):
            yield element
        pending.extend(element.children)


def _check_body(body: Element, weights: _Weights, limits: Limits) -> None:
    layers: dict[str, Element] = {}
    constants: dict[str, _Constant] = {}
    for layer in (item for group in body.all("layers") for item in group.children):
        identity, kind = layer.attributes.get("id", ""), layer.attributes.get("type", "")
        if layer.tag != "layer" or identity in layers:
            raise UnsafeBundleError(f"layer {identity[:80]!r} is there twice, or is no layer")
        layers[identity] = layer
        if not _OPSET.fullmatch(layer.attributes.get("version", "")):
            raise UnsafeBundleError(
                f"layer {identity[:80]!r} is {layer.attributes.get('version', '')[:80]}::{kind[:80]}",
                why="layers of opset1 to opset17 are allowed; others come from extension libraries",
            )
        _check_ports(layer, limits)
        if (constant := _constant(layer, kind, weights, limits)) is not None:
            constants[identity] = constant
    _check_growth(body, layers, constants, weights, limits)


def _check_ports(layer: Element, limits: Limits) -> None:
    for port in (
        item for side in ("input", "output") for group in layer.all(side) for item in group.all("port")
    ):
        dims = [dim.text.strip() for dim in port.all("dim")]
        if len(dims) > _MAX_RANK or not all(_SIZE.fullmatch(dim) for dim in dims):
            raise UnsafeBundleError(
                f"layer {layer.attributes.get('name', '')[:80]!r} has the dims {dims[:8]}"
            )
        # Bytes at least: types of fewer bits are for weights, whose size `_constant` knows.
        _check_size(layer, math.prod(max(int(dim), 1) for dim in dims), limits.tensor_bytes)


def _constant(layer: Element, kind: str, weights: _Weights, limits: Limits) -> _Constant | None:
    given: dict[str, str] = {}
    for data in layer.all("data"):
        given |= data.attributes
    if "offset" not in given and "size" not in given and kind != "Const":
        return None
    name = layer.attributes.get("name", "")[:80]
    offset, size, element_type = given.get("offset", ""), given.get("size", ""), given.get("element_type", "")
    if len(layer.all("data")) != 1 or not (_NUMBER.fullmatch(offset) and _NUMBER.fullmatch(size)):
        raise UnsafeBundleError(f"constant {name!r} has offset {offset[:40]!r}, size {size[:40]!r}")
    if int(offset) + int(size) > weights.size:
        error = UnsafeBundleError if weights.size else IntegrityError
        raise error(
            f"constant {name!r} ends at byte {int(offset) + int(size)} of {weights.path.name!r}",
            why=f"the file has {weights.size} bytes",
        )
    needed = _needed(name, element_type, given.get("shape", ""))
    if needed is not None and needed != int(size):
        raise UnsafeBundleError(
            f"constant {name!r} has {size} bytes", why=f"its type and shape need {needed}"
        )
    _check_size(layer, int(size), limits.tensor_bytes)
    return _Constant(element_type, int(offset), int(size))


def _needed(name: str, element_type: str, shape: str) -> int | None:
    dims = [dim.strip() for dim in shape.split(",")] if shape.strip() else []
    if len(dims) > _MAX_RANK or not all(_NUMBER.fullmatch(dim) for dim in dims):
        raise UnsafeBundleError(f"constant {name!r} has the shape {shape[:80]!r}")
    if element_type in _UNSIZED:
        return None
    if element_type not in _BITS:
        raise UnsafeBundleError(f"constant {name!r} has the type {element_type[:80]!r}")
    return (math.prod(map(int, dims)) * _BITS[element_type] + 7) // 8


def _check_growth(
    body: Element,
    layers: Mapping[str, Element],
    constants: Mapping[str, _Constant],
    weights: _Weights,
    limits: Limits,
) -> None:
    sources = {
        (edge.attributes.get("to-layer", ""), edge.attributes.get("to-port", "")): edge.attributes.get(
            "from-layer", ""
        )
        for edges in body.all("edges")
        for edge in edges.all("edge")
    }
    for identity, layer in layers.items():
        indices = _GROWERS.get(layer.attributes.get("type", ""))
        if indices is None:
            continue
        ports = [port.attributes.get("id", "") for group in layer.all("input") for port in group.all("port")]
        numbers = [
            number
            for index in indices
            if index < len(ports)
            for number in _content(_origin(sources, (identity, ports[index]), layers), constants, weights)
        ]
        _check_size(layer, math.prod(max(abs(number), 1) for number in numbers), limits.grown_bytes)


def _origin(
    sources: Mapping[tuple[str, str], str], port: tuple[str, str], layers: Mapping[str, Element]
) -> str:
    source = sources.get(port, "")
    for _ in range(8):  # conversions of conversions; a cycle ends here too
        layer = layers.get(source)
        if layer is None or layer.attributes.get("type") != "Convert":
            break
        ports = [item.attributes.get("id", "") for group in layer.all("input") for item in group.all("port")]
        source = sources.get((source, ports[0] if ports else ""), "")
    return source


def _content(source: str, constants: Mapping[str, _Constant], weights: _Weights) -> Sequence[int]:
    constant = constants.get(source)
    if constant is None or constant.element_type not in _READABLE:
        return ()
    dtype = np.dtype(_READABLE[constant.element_type])
    if constant.size > _SMALL * dtype.itemsize:
        return ()
    with open_regular(weights.path) as file:
        file.seek(constant.offset)
        values: list[int] = np.frombuffer(file.read(constant.size), dtype).tolist()
    return values


def _check_size(layer: Element, size: int, cap: int) -> None:
    if size > cap:
        raise UnsafeBundleError(
            f"layer {layer.attributes.get('name', '')[:80]!r} makes at least {size} bytes",
            why=f"at most {cap} are allowed",
        )
