"""OpenVINO IR is read under limits: honest files pass, forged ones raise our errors and nothing else."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdk_runtimes.errors import BundleError, IntegrityError, UnsafeBundleError
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits
from sdk_runtimes.openvino_ir import check_openvino_file


def layer(
    identity: int, kind: str, data: str = "", *, dims: str = "", inputs: int = 0, version: str = "opset1"
) -> str:
    ports = "".join(f'<port id="{n}"/>' for n in range(inputs))
    sizes = "".join(f"<dim>{dim}</dim>" for dim in dims.split())
    return (
        f'<layer id="{identity}" name="l{identity}" type="{kind}" version="{version}">{data}'
        f'<input>{ports}</input><output><port id="{inputs}" precision="FP32">{sizes}</port></output></layer>'
    )


def const(identity: int, element_type: str, shape: str, offset: int, size: int) -> str:
    data = f'<data element_type="{element_type}" shape="{shape}" offset="{offset}" size="{size}"/>'
    return layer(identity, "Const", data)


def edge(source: int, to: int, port: int) -> str:
    return f'<edge from-layer="{source}" from-port="0" to-layer="{to}" to-port="{port}"/>'


def net(*layers: str, edges: str = "", more: str = "") -> str:
    body = f"<layers>{''.join(layers)}</layers><edges>{edges}</edges>{more}"
    return f'<?xml version="1.0"?><net name="m" version="11">{body}<rt_info/></net>'


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., None]:
    def run(text: str | bytes, *, weights: bytes | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        path = tmp_path / "m.xml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        if weights is not None:
            (tmp_path / "m.bin").write_bytes(weights)
        check_openvino_file(path, limits=limits)

    return run


HONEST = net(
    layer(0, "Parameter", '<data shape="?,3" element_type="f32"/>', dims="-1 3"),
    const(1, "f32", "3, 4", 0, 48),
    layer(2, "MatMul", '<data transpose_a="false" transpose_b="false"/>', dims="-1 4", inputs=2),
    layer(3, "Result", inputs=1),
    edges=edge(0, 2, 0) + edge(1, 2, 1) + edge(2, 3, 0),
)


def test_an_honest_net(check: Callable[..., None]) -> None:
    check(HONEST, weights=bytes(48))


def test_what_openvino_writes(tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    x = ops.parameter([-1, 3], np.float32, name="x")
    flag = ops.parameter([], np.bool_, name="flag")
    parts = [ops.parameter([-1, 4], np.float32, name=f"p{n}") for n in range(2)]
    bodies = [
        ov.Model([ops.result(ops.multiply(p, np.float32(n + 2)))], [p], "b") for n, p in enumerate(parts)
    ]
    product = ops.matmul(x, ops.constant(np.ones((3, 4), np.float32)), transpose_a=False, transpose_b=False)
    branch = ops.if_op(flag.output(0))
    branch.set_then_body(bodies[0])
    branch.set_else_body(bodies[1])
    branch.set_input(product.output(0), parts[0], parts[1])
    out = branch.set_output(bodies[0].results[0], bodies[1].results[0])
    grown = ops.broadcast(ops.reduce_sum(out, [0, 1], keep_dims=True), np.array([8, 16], np.int64))
    model = ov.Model([grown], [x, flag], "m")
    for compressed in (False, True):
        ov.save_model(model, tmp_path / "m.xml", compress_to_fp16=compressed)
        check_openvino_file(tmp_path / "m.xml")
    with pytest.raises(UnsafeBundleError, match="makes at least 128 bytes"):
        check_openvino_file(tmp_path / "m.xml", limits=replace(DEFAULT_LIMITS, grown_bytes=100))
    (tmp_path / "m.bin").write_bytes((tmp_path / "m.bin").read_bytes()[:-1])
    with pytest.raises(UnsafeBundleError, match="ends at byte"):
        check_openvino_file(tmp_path / "m.xml")


# --- XML ---

LAUGHS = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
XML: dict[str, str | bytes] = {
    "nothing": "",
    "no XML": "hello",
    "not closed": HONEST[:-6],
    "a second root": HONEST + "<net/>",
    "another root": '<model version="11"/>',
    "an unknown version": HONEST.replace('version="11"', 'version="99"'),
    "an attribute twice": HONEST.replace('name="m"', 'name="m" name="n"'),
    "a DOCTYPE": HONEST.replace("?>", "?><!DOCTYPE net>", 1),
    "a billion laughs": HONEST.replace("?>", f'?><!DOCTYPE net [<!ENTITY l0 "ha">{LAUGHS}]>', 1),
    "an entity that reads a file": HONEST.replace(
        "?>", '?><!DOCTYPE net [<!ENTITY e SYSTEM "file:///etc/passwd">]>', 1
    ).replace('name="m"', 'name="&e;"'),
    "a parameter entity": HONEST.replace("?>", '?><!DOCTYPE net [<!ENTITY % e SYSTEM "x"> %e;]>', 1),
    "an undefined entity": HONEST.replace('name="m"', 'name="&e;"'),
    "a processing instruction": HONEST.replace("?>", '?><?xml-stylesheet href="x"?>', 1),
    "UTF-16": HONEST.encode("utf-16"),
    "another encoding": HONEST.replace('"1.0"', '"1.0" encoding="utf-7"'),
    "Latin-1": HONEST.replace('"1.0"', '"1.0" encoding="iso-8859-1"'),
    "bytes that are no UTF-8": HONEST.encode().replace(b'name="m"', b'name="\xff"'),
    "XML 1.1": HONEST.replace('"1.0"', '"1.1"'),
    "nested too deep": net(more="<a>" * 5000 + "</a>" * 5000),
}


@pytest.mark.parametrize("fault", XML)
def test_bad_xml(check: Callable[..., None], fault: str) -> None:
    with pytest.raises(UnsafeBundleError, match=r"m\.xml"):
        check(XML[fault], weights=bytes(48))


@pytest.mark.parametrize(
    "limits",
    [
        Limits(xml_bytes=100),
        Limits(graph_fields=5),
        Limits(graph_nodes=3),
        Limits(graph_depth=0),
        Limits(tensor_bytes=40),
    ],
)
def test_limits_hold(check: Callable[..., None], limits: Limits) -> None:
    with pytest.raises(UnsafeBundleError):
        check(HONEST, weights=bytes(48), limits=limits)


# --- constants ---


@pytest.mark.parametrize(
    ("element_type", "shape", "offset", "size"),
    [
        ("f32", "3, 4", 1, 48),
        ("f32", "3, 4", 0, 47),
        ("f32", "3, 4", 0, 52),
        ("f32", "3, 5", 0, 48),
        ("f32", "", 0, 48),
        ("f32", "-3, -4", 0, 48),
        ("f32", "3, x", 0, 48),
        ("f32", "1" + ",1" * 70, 0, 4),
        ("f99", "3, 4", 0, 48),
        ("string", "3", 1 << 40, 48),
        ("i4", "3", 0, 1),
    ],
)
def test_constants_that_are_not_what_they_say(
    check: Callable[..., None], element_type: str, shape: str, offset: int, size: int
) -> None:
    with pytest.raises(UnsafeBundleError, match="constant"):
        check(net(const(0, element_type, shape, offset, size)), weights=bytes(48))


@pytest.mark.parametrize("offset", ["-1", "1e3", "0x10", "", "9" * 40, "\u0663"])
def test_offsets_that_are_no_plain_numbers(check: Callable[..., None], offset: str) -> None:
    text = net(const(0, "f32", "3, 4", 0, 48)).replace('offset="0"', f'offset="{offset}"')
    with pytest.raises(UnsafeBundleError, match="offset"):
        check(text, weights=bytes(48))


def test_any_layer_that_points_into_the_weights(check: Callable[..., None]) -> None:
    text = net(layer(0, "ReadValue", '<data element_type="f32" shape="4" offset="100" size="16"/>'))
    with pytest.raises(UnsafeBundleError, match="ends at byte 116"):
        check(text, weights=bytes(48))


def test_weights_that_are_missing(check: Callable[..., None]) -> None:
    with pytest.raises(IntegrityError, match=r"m\.bin"):
        check(HONEST)


def test_weights_behind_a_link(check: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(48))
    (tmp_path / "m.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeBundleError, match="regular"):
        check(HONEST)


# --- layers ---


def test_layers_of_extensions(check: Callable[..., None]) -> None:
    with pytest.raises(UnsafeBundleError, match="extension"):
        check(net(layer(0, "Evil", version="extension")))


@pytest.mark.parametrize("version", ["opset0", "opset99", "experimental", "", "opset1 "])
def test_unknown_opsets(check: Callable[..., None], version: str) -> None:
    with pytest.raises(UnsafeBundleError, match="opset1 to opset17"):
        check(net(layer(0, "Relu", version=version)))


def test_layers_of_bodies_are_seen(check: Callable[..., None]) -> None:
    body = f"<layers>{layer(0, 'Evil', version='extension')}</layers><edges/>"
    with pytest.raises(UnsafeBundleError, match="Evil"):
        check(net(layer(0, "If", f"<then_body>{body}</then_body>", version="opset8")))


def test_a_layer_twice(check: Callable[..., None]) -> None:
    with pytest.raises(UnsafeBundleError, match="twice"):
        check(net(layer(0, "Relu"), layer(0, "Relu")))


@pytest.mark.parametrize("dims", ["1048576 1048576", "-2", "1.5", "x", "1 " * 70])
def test_declared_sizes(check: Callable[..., None], dims: str) -> None:
    with pytest.raises(UnsafeBundleError, match=r"dims|makes at least"):
        check(net(layer(0, "Parameter", dims=dims)))


@pytest.mark.parametrize(
    ("kind", "port"), [("Broadcast", 1), ("Tile", 1), ("RandomUniform", 0), ("Interpolate", 1)]
)
@pytest.mark.parametrize("converted", [False, True])
def test_bombs(check: Callable[..., None], kind: str, port: int, converted: bool) -> None:
    sizes = np.array([1 << 20, 1 << 20], np.int64).tobytes()
    text = net(
        const(0, "i64", "2", 0, 16),
        layer(1, "Convert", '<data destination_type="i32"/>', inputs=1),
        layer(2, kind, dims="-1", inputs=2),
        edges=edge(0, 1, 0) + edge(1 if converted else 0, 2, port),
    )
    check(text, weights=np.array([2, 3], np.int64).tobytes())
    with pytest.raises(UnsafeBundleError, match="makes at least"):
        check(text, weights=sizes)


def test_conversions_in_a_circle(check: Callable[..., None]) -> None:
    check(
        net(
            layer(1, "Convert", inputs=1),
            layer(2, "Tile", inputs=2),
            edges=edge(1, 1, 0) + edge(1, 2, 1),
        )
    )


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_raise_our_errors_or_nothing(check: Callable[..., None], data: st.DataObject) -> None:
    text = HONEST.replace('"MatMul"', '"Tile"')
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text) - 1))
        stop = start + data.draw(st.integers(0, 10))
        text = text[:start] + data.draw(st.text(max_size=6) | st.just(text[start:stop] * 2)) + text[stop:]
    with suppress(BundleError):
        check(text.encode("utf-8", "surrogatepass"), weights=bytes(48))
