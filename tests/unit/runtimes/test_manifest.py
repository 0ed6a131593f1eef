"""The manifest: one reading only, and everything it says makes sense."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import forgery
from forgery import GRAPH, Document
from sdk_runtimes.bundle import open_bundle
from sdk_runtimes.errors import BundleError, UnsafeBundleError
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits
from sdk_runtimes.manifest import SCHEMA_VERSION, FileEntry, dump_manifest, manifest_schema, parse_manifest
from sdk_runtimes.manifest_checks import check_manifest
from sdk_runtimes.strict_json import load_json

SCHEMA = Path(__file__).parents[3] / "docs/bundle.schema.json"
MANIFEST = replace(
    forgery.MANIFEST,
    files={path: FileEntry("0" * 64, 1) for path in (*forgery.SPEC.files, forgery.GOLDEN, "assets/a.txt")},
)


def changed(change: Callable[[Document], object]) -> bytes:
    document = json.loads(dump_manifest(MANIFEST))
    change(document)
    return json.dumps(document).encode()


def read(data: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
    check_manifest(parse_manifest(data, limits=limits), limits)


def test_round_trip() -> None:
    assert parse_manifest(dump_manifest(MANIFEST)) == MANIFEST
    check_manifest(MANIFEST, DEFAULT_LIMITS)


def test_dumping_is_canonical() -> None:
    backwards = replace(MANIFEST, files=dict(reversed(MANIFEST.files.items())))
    assert dump_manifest(backwards) == dump_manifest(MANIFEST)
    assert dump_manifest(MANIFEST).endswith(b"}\n")


def test_the_published_schema_is_current() -> None:
    expected = json.dumps(manifest_schema(), indent=2, sort_keys=True) + "\n"
    assert SCHEMA.read_text() == expected, "write what manifest_schema() gives to docs/bundle.schema.json"


def test_a_real_manifest_follows_the_published_schema(tmp_path: Path) -> None:
    forgery.write(tmp_path / "b")
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads((tmp_path / "b/manifest.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    document["programs"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.Draft202012Validator(schema).validate(document)


# --- JSON ---

BAD_JSON: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"<xml/>",
    "truncated": dump_manifest(MANIFEST)[:-3],
    "two documents": dump_manifest(MANIFEST) * 2,
    "a duplicate key": changed(lambda _: None).replace(b'"name": "net"', b'"name": "net", "name": "net"', 1),
    "NaN": changed(lambda d: d["quality"][0]["outputs"][0].update(rel_rmse="@")).replace(b'"@"', b"NaN"),
    "Infinity": changed(lambda d: d["quality"][0]["outputs"][0].update(rel_rmse="@")).replace(
        b'"@"', b"Infinity"
    ),
    "a number that overflows": changed(lambda d: d["quality"][0]["outputs"][0].update(rel_rmse="@")).replace(
        b'"@"', b"1e999"
    ),
    "a number of many digits": changed(lambda d: d["programs"][0].update(flops="@")).replace(
        b'"@"', b"9" * 5000
    ),
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "nested within the limit of Python": changed(lambda d: d.update(x=json.loads("[" * 60 + "]" * 60))),
    "UTF-16": dump_manifest(MANIFEST).decode().encode("utf-16"),
    "UTF-8 with a byte order mark": b"\xef\xbb\xbf" + dump_manifest(MANIFEST),
    "invalid UTF-8": dump_manifest(MANIFEST).replace(b'"net"', b'"\xff\xfe"', 1),
    "a lone surrogate": changed(lambda d: d.update(name="@")).replace(b'"@"', b'"\\ud800"'),
    "an escape sequence for terminals": changed(lambda d: d.update(name="\x1b[2Jgone")),
    "text that runs backwards": changed(lambda d: d["metadata"].update(note="\u202etxt.exe")),
    "a list": b"[]",
    "null": b"null",
}


@pytest.mark.parametrize("fault", BAD_JSON)
def test_bad_json(fault: str) -> None:
    with pytest.raises(UnsafeBundleError, match=r"manifest\.json"):
        read(BAD_JSON[fault])


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, "1", 1.5, True, None, [1]])
def test_unknown_schema_versions(version: object) -> None:
    with pytest.raises(UnsafeBundleError, match=r"schema"):
        read(changed(lambda document: document.update(schema_version=version)))


def test_a_newer_version_tells_how_to_read_it() -> None:
    with pytest.raises(UnsafeBundleError, match="pip install -U edge-sdk"):
        read(changed(lambda document: document.update(schema_version=2)))


def test_a_huge_manifest(tmp_path: Path) -> None:
    forgery.write(tmp_path / "b")
    with (tmp_path / "b/manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnsafeBundleError, match="larger than"):
        open_bundle(tmp_path / "b")


# --- types and sense ---


def program(**changes: object) -> Callable[[Document], object]:
    return lambda document: document["programs"][0].update(changes)


def tensor(name: object = "x", dtype: object = "float32", shape: object = (1,)) -> Document:
    return {"name": name, "dtype": dtype, "shape": shape}


def symbol(name: object = "batch", minimum: object = 1, maximum: object = 2) -> list[Document]:
    return [{"symbol": name, "minimum": minimum, "maximum": maximum}]


def entry(**changes: object) -> Callable[[Document], object]:
    return lambda document: document["files"][GRAPH].update(changes)


def record(**changes: object) -> Callable[[Document], object]:
    return lambda document: document["quality"][0].update(changes)


def twice(key: str) -> Callable[[Document], object]:
    return lambda document: document[key].append(document[key][0])


SENSELESS: dict[str, Callable[[Document], Any]] = {
    "an unknown key": lambda d: d.update(surprise=1),
    "a missing key": lambda d: d.pop("files"),
    "a name that is a number": lambda d: d.update(name=7),
    "no name": lambda d: d.update(name=""),
    "no program": lambda d: d.update(programs=[], goldens=[], quality=[]),
    "a program twice": twice("programs"),
    "a program twice but for case": lambda d: d["programs"].append({**d["programs"][0], "name": "NET"}),
    "a program whose name is a path": program(name="../net"),
    "a program whose name is reserved": program(name="con"),
    "a target with a slash": program(target="on/nx"),
    "a precision with a space": program(precision="fp 32"),
    "no files": program(files=[]),
    "an entry that is not listed": program(files=["programs/other.onnx"]),
    "a file of the program twice": program(files=[*forgery.SPEC.files, GRAPH]),
    "a program among the assets": program(files=[*forgery.SPEC.files, "assets/a.txt"]),
    "a file of no program": program(files=[GRAPH]),
    "negative weights": program(weights_bytes=-1),
    "weights beyond 64 bits": program(weights_bytes=1 << 64),
    "fractional flops": program(flops=1.5),
    "an input twice": program(inputs=[tensor(), tensor()]),
    "an output twice": program(outputs=[tensor("y"), tensor("y")]),
    "an input without a name": program(inputs=[tensor("")]),
    "an unknown dtype": program(inputs=[tensor(dtype="float128")]),
    "a dtype of objects": program(inputs=[tensor(dtype="object")]),
    "a negative size": program(inputs=[tensor(shape=[-1])]),
    "a fractional size": program(inputs=[tensor(shape=[1.5])]),
    "an undeclared symbol": program(inputs=[tensor(shape=["n"])]),
    "an expression in an input": program(inputs=[tensor(shape=["2*batch"])]),
    "an undeclared symbol in an output": program(outputs=[tensor(shape=["2*n"])]),
    "code in an output": program(outputs=[tensor(shape=["__import__('os')"])]),
    "a symbol twice": program(symbols=symbol() + symbol()),
    "a symbol that is no name": program(symbols=symbol() + symbol("a b")),
    "a range that is empty": program(symbols=symbol(minimum=3)),
    "a range below zero": program(symbols=symbol(minimum=-1)),
    "a hash too short": entry(sha256="0" * 63),
    "a hash in capitals": entry(sha256="A" * 64),
    "a hash that is none": entry(sha256="g" * 64),
    "a hash with a newline": entry(sha256="0" * 64 + "\n"),
    "a negative file size": entry(size=-1),
    "a file size in words": entry(size="1"),
    "goldens of no program": lambda d: d["goldens"][0].update(program="other"),
    "goldens that are not listed": lambda d: d["goldens"][0].update(file="golden/other.safetensors"),
    "goldens among the programs": lambda d: d["goldens"][0].update(file=GRAPH),
    "no golden cases": lambda d: d["goldens"][0].update(cases=0),
    "millions of golden cases": lambda d: d["goldens"][0].update(cases=1 << 30),
    "goldens twice": twice("goldens"),
    "quality of no program": record(program="other.onnx"),
    "quality twice": twice("quality"),
    "an invented verdict": record(verdict="excellent"),
    "passed on nothing": record(evaluator=""),
    "unverified without a reason": record(verdict="unverified", reason=""),
    "a negative tolerance": record(tolerance={"rel_rmse": -1.0, "min_psnr_db": None}),
    "quality of an unknown output": lambda d: d["quality"][0]["outputs"][0].update(output="z"),
    "an output's quality twice": lambda d: d["quality"][0]["outputs"].append(d["quality"][0]["outputs"][0]),
}


@pytest.mark.parametrize("fault", SENSELESS)
def test_senseless_manifests(fault: str) -> None:
    with pytest.raises(UnsafeBundleError, match=r"manifest\.json"):
        read(changed(SENSELESS[fault]))


@pytest.mark.parametrize(
    "dims",
    [
        ("batch",),
        ("2*batch",),
        ("(batch + 1)//2", 3),
        ("Max(1, batch)",),
        ("u0",),
        ("floor(batch/2)",),
        (),
        (0,),
    ],
)
def test_sizes_of_outputs(dims: tuple[object, ...]) -> None:
    read(changed(program(outputs=[tensor("y", shape=list(dims))])))


@pytest.mark.parametrize(
    "limits", [Limits(files=3), Limits(total_bytes=3), Limits(path_chars=10), Limits(json_depth=3)]
)
def test_limits_hold(limits: Limits) -> None:
    read(dump_manifest(MANIFEST))
    with pytest.raises(UnsafeBundleError):
        read(dump_manifest(MANIFEST), limits)


# --- properties ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(data=st.data(), value=json_values)
def test_any_value_anywhere_raises_our_error_or_is_read(data: st.DataObject, value: Any) -> None:
    document = json.loads(dump_manifest(MANIFEST))
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    with suppress(BundleError):
        read(json.dumps(document).encode())


@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_raise_our_error(data: bytes) -> None:
    with pytest.raises(UnsafeBundleError):
        read(data)


@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(value=json_values)
def test_what_strict_json_reads_is_what_json_reads(value: Any) -> None:
    data = json.dumps(value).encode()
    try:
        strict = load_json(data, name="it")
    except UnsafeBundleError:
        return
    assert strict == json.loads(data)
