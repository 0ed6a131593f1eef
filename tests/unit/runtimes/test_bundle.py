"""What a bundle says of itself, and every planted fault that its reader must find."""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import forgery
from forgery import GOLDEN, GRAPH, WEIGHTS, Document
from sdk_runtimes.bundle import Bundle, describe, open_bundle
from sdk_runtimes.errors import (
    ArgumentError,
    BundleError,
    IntegrityError,
    SdkError,
    UnknownChoiceError,
    UnsafeBundleError,
)
from sdk_runtimes.limits import Limits

posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    forgery.write(tmp_path / "net.bundle")
    return tmp_path / "net.bundle"


def test_a_written_bundle_opens(out: Path) -> None:
    bundle = open_bundle(out)
    assert bundle.targets == ("onnx",)
    assert bundle.program() == bundle.program("onnx", "net") == forgery.SPEC
    assert set(bundle.manifest.files) == {GRAPH, WEIGHTS, GOLDEN, "assets/labels.txt"}
    assert bundle.size_bytes == sum((out / file).stat().st_size for file in bundle.manifest.files)
    assert bundle.file("assets/labels.txt").read_text() == "cat\ndog\n"


def test_the_sealed_bundle_is_the_opened_one(tmp_path: Path) -> None:
    assert forgery.write(tmp_path / "b") == open_bundle(tmp_path / "b")


def test_the_same_content_has_the_same_digest(tmp_path: Path) -> None:
    assert forgery.write(tmp_path / "a").digest == forgery.write(tmp_path / "b").digest


def test_the_bundle_itself_may_be_reached_by_a_link(out: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(out)
    assert open_bundle(tmp_path / "link").manifest.name == "net"


def test_print_out(out: Path) -> None:
    bundle = open_bundle(out)
    assert "passed on onnxruntime:cpu, rel. RMSE 3e-07" in str(bundle)
    assert "net.onnx" in str(bundle)
    assert "fp32" in str(bundle)


def test_a_print_out_says_what_is_not_verified(out: Path) -> None:
    bundle = open_bundle(out)
    record = bundle.quality("net.onnx")
    assert record is not None
    unverified = replace(record, verdict="unverified", reason="no Mac here", outputs=())
    assert describe(unverified) == "UNVERIFIED: no Mac here"
    silent = Bundle(bundle.path, replace(bundle.manifest, quality=()), bundle.digest)
    assert "UNVERIFIED: the gate was off" in str(silent)


@pytest.mark.parametrize(("target", "name"), [("coreml", None), (None, "unet"), ("onnx", "unet")])
def test_an_unknown_program_lists_what_there_is(out: Path, target: str | None, name: str | None) -> None:
    with pytest.raises(UnknownChoiceError, match="'onnx'" if target == "coreml" else "'net'"):
        open_bundle(out).program(target, name)


def test_an_ambiguous_program_must_be_chosen(out: Path) -> None:
    bundle = open_bundle(out)
    second = replace(forgery.SPEC, name="other")
    two = Bundle(bundle.path, replace(bundle.manifest, programs=(forgery.SPEC, second)), bundle.digest)
    with pytest.raises(ArgumentError, match=r"net\.onnx, other\.onnx"):
        two.program("onnx")
    assert two.program("onnx", "other") == second


def test_an_unlisted_file_is_not_handed_out(out: Path) -> None:
    with pytest.raises(UnknownChoiceError, match=r"labels\.txt"):
        open_bundle(out).file("../secret")


@pytest.mark.parametrize("place", ["nothing", "a_file", "empty_folder"])
def test_no_bundle(tmp_path: Path, place: str) -> None:
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(BundleError, match="no bundle"):
        open_bundle(tmp_path / place)


# --- altered files ---


@pytest.mark.parametrize("file", [GRAPH, WEIGHTS, GOLDEN, "assets/labels.txt"])
def test_a_flipped_bit(out: Path, file: str) -> None:
    data = bytearray((out / file).read_bytes())
    data[len(data) // 2] ^= 1
    (out / file).write_bytes(data)
    with pytest.raises(IntegrityError, match="hash"):
        open_bundle(out)


@pytest.mark.parametrize("file", [GRAPH, WEIGHTS])
def test_a_truncated_file(out: Path, file: str) -> None:
    (out / file).write_bytes((out / file).read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="bytes"):
        open_bundle(out)


def test_a_missing_file(out: Path) -> None:
    (out / WEIGHTS).unlink()
    with pytest.raises(IntegrityError, match="missing"):
        open_bundle(out)


@pytest.mark.parametrize(
    "file", ["programs/extra.onnx", "assets/.hidden", "stray.txt", "other/file", "golden/a/b"]
)
def test_an_extra_file(out: Path, file: str) -> None:
    (out / file).parent.mkdir(exist_ok=True)
    (out / file).write_text("x")
    with pytest.raises(UnsafeBundleError, match=r"not in the manifest|does not belong"):
        open_bundle(out)


def test_a_sparse_file_is_refused_by_its_size_alone(out: Path) -> None:
    with (out / WEIGHTS).open("r+b") as file:
        file.truncate(1 << 40)  # takes no space on disk, and minutes to hash
    with pytest.raises(IntegrityError, match=str(1 << 40)):
        open_bundle(out)


def test_a_sparse_file_that_the_manifest_admits_is_too_large(out: Path) -> None:
    with (out / WEIGHTS).open("r+b") as file:
        file.truncate(1 << 40)
    forgery.edit(out, lambda document: document["files"][WEIGHTS].update(size=1 << 40))
    with pytest.raises(UnsafeBundleError, match="more than"):
        open_bundle(out)


# --- links and devices ---


@posix
@pytest.mark.parametrize("linked", [WEIGHTS, "assets", "manifest.json"])
def test_symbolic_links_are_refused(out: Path, tmp_path: Path, linked: str) -> None:
    (out / linked).rename(tmp_path / "elsewhere")
    (out / linked).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeBundleError, match=r"link|regular"):
        open_bundle(out)


@posix
def test_hard_links_are_accepted_because_content_is_hashed(out: Path, tmp_path: Path) -> None:
    os.link(out / WEIGHTS, tmp_path / "store")
    assert (out / WEIGHTS).stat().st_nlink == 2
    assert open_bundle(out).manifest.name == "net"


@posix
def test_a_hard_link_to_other_content_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 128)
    (out / WEIGHTS).unlink()
    os.link(tmp_path / "secret", out / WEIGHTS)
    with pytest.raises(IntegrityError, match="hash"):
        open_bundle(out)


@posix
def test_a_pipe_is_refused_without_waiting_for_it(out: Path) -> None:
    (out / WEIGHTS).unlink()
    os.mkfifo(out / WEIGHTS)
    assert stat.S_ISFIFO((out / WEIGHTS).stat().st_mode)
    with pytest.raises(UnsafeBundleError, match="regular"):
        open_bundle(out)


# --- paths in the manifest ---

BAD_PATHS = [
    "/etc/passwd",
    "../secret",
    "programs/../../secret",
    "programs/./a.onnx",
    "programs//a.onnx",
    "programs\\a.onnx",
    "C:/a.onnx",
    "programs/a.onnx:stream",
    "programs/a\x00.onnx",
    "programs/a\n.onnx",
    "programs/\u202exnno.a",
    "programs/é.onnx",
    "programs/con.onnx",
    "programs/LPT1",
    "programs/a.",
    "programs/a ",
    "programs/.hidden",
    "programs/" + "a" * 300,
    "programs",
    "secret/a.onnx",
    "manifest.json",
    "",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths_that_lead_elsewhere(out: Path, path: str) -> None:
    forgery.edit(out, lambda document: document["files"].update({path: document["files"][WEIGHTS]}))
    with pytest.raises(UnsafeBundleError):
        open_bundle(out)


@pytest.mark.parametrize("path", ["assets/LABELS.txt", "assets/labels.txt/inner"])
def test_paths_that_are_one_on_some_file_systems(out: Path, path: str) -> None:
    forgery.edit(out, lambda document: document["files"].update({path: document["files"][WEIGHTS]}))
    with pytest.raises(UnsafeBundleError, match=r"only in case|folder of"):
        open_bundle(out)


# --- limits ---


@pytest.mark.parametrize(
    "limits",
    [
        Limits(manifest_bytes=100),
        Limits(json_depth=2),
        Limits(files=3),
        Limits(total_bytes=100),
        Limits(path_chars=8),
        Limits(graph_bytes=10),
        Limits(graph_nodes=0),
        Limits(graph_fields=3),
        Limits(tensor_bytes=100),
    ],
)
def test_limits_hold(out: Path, limits: Limits) -> None:
    with pytest.raises(UnsafeBundleError):
        open_bundle(out, limits=limits)


def test_a_folder_of_many_empty_folders(out: Path) -> None:
    for number in range(40):
        (out / f"assets/{number}").mkdir()
    with pytest.raises(UnsafeBundleError, match="more than 8 files"):
        open_bundle(out, limits=Limits(files=8))


def test_a_folder_that_is_nested_too_deep(out: Path) -> None:
    (out / "assets" / "/".join("d" * 200)).mkdir(parents=True)
    with pytest.raises(UnsafeBundleError, match="too deep"):
        open_bundle(out)


# --- graphs of a bundle ---


def test_weights_outside_the_bundle(out: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(128))
    forgery.forge(out, GRAPH, forgery.matmul_graph("../../secret"))
    with pytest.raises(UnsafeBundleError, match="external data"):
        open_bundle(out)


def test_weights_in_a_file_of_the_bundle_that_is_not_the_programs(out: Path) -> None:
    forgery.forge(out, GRAPH, forgery.matmul_graph("../assets/labels.txt"))
    with pytest.raises(UnsafeBundleError, match="external data"):
        open_bundle(out)


def test_an_unknown_target_is_refused(out: Path) -> None:
    def change(document: Document) -> None:
        document["programs"][0]["target"] = "quantum"
        document["quality"] = []

    forgery.edit(out, change)
    with pytest.raises(UnknownChoiceError, match="openvino"):
        open_bundle(out)


@pytest.mark.parametrize(("target", "entry"), [("onnx", WEIGHTS), ("openvino", GRAPH), ("coreml", GRAPH)])
def test_an_entry_that_is_not_the_targets(out: Path, target: str, entry: str) -> None:
    def change(document: Document) -> None:
        program = document["programs"][0]
        program["target"] = target
        program["files"].sort(key=lambda file: file != entry)
        document["quality"] = []

    forgery.edit(out, change)
    with pytest.raises(UnsafeBundleError, match="opens"):
        open_bundle(out)


# --- OpenVINO ---

NET = """<net name="m" version="11"><layers><layer id="0" name="c" type="Const" version="opset1">
<data element_type="f32" shape="4" offset="0" size="16"/></layer></layers><edges/></net>"""


def _as_openvino(out: Path, *, files: list[str]) -> None:
    """Adds a program of another network, whose weights are `programs/ir.bin`."""
    forgery.forge(out, "programs/ir.xml", NET.encode())
    forgery.forge(out, "programs/ir.bin", bytes(16))

    def change(document: Document) -> None:
        first = document["programs"][0]
        first["files"] += [file for file in ("programs/ir.bin",) if file not in files]
        document["programs"].append({**first, "name": "ir", "target": "openvino", "files": files})

    forgery.edit(out, change)


def test_an_openvino_program_opens(out: Path) -> None:
    _as_openvino(out, files=["programs/ir.xml", "programs/ir.bin"])
    assert open_bundle(out).targets == ("onnx", "openvino")


def test_weights_of_another_program_that_openvino_would_open(out: Path) -> None:
    _as_openvino(out, files=["programs/ir.xml"])
    with pytest.raises(UnsafeBundleError, match=r"does not list 'programs/ir\.bin'"):
        open_bundle(out)


def test_an_openvino_program_that_lies(out: Path) -> None:
    _as_openvino(out, files=["programs/ir.xml", "programs/ir.bin"])
    forgery.forge(out, "programs/ir.bin", bytes(15))
    with pytest.raises(UnsafeBundleError, match="ends at byte 16"):
        open_bundle(out)


# --- a package of Core ML ---


def _as_package(out: Path, manifest: object) -> None:
    base = "programs/net.mlpackage"
    forgery.forge(out, f"{base}/Manifest.json", json.dumps(manifest).encode())
    forgery.forge(out, f"{base}/Data/com.apple.CoreML/model.mlmodel", b"model")

    def change(document: Document) -> None:
        program = document["programs"][0]
        program["target"] = "coreml"
        program["files"] = [f"{base}/Manifest.json", f"{base}/Data/com.apple.CoreML/model.mlmodel"]
        for file in (GRAPH, WEIGHTS):
            del document["files"][file]
            (out / file).unlink()
        document["quality"] = []

    forgery.edit(out, change)


def _package(path: object, root: str = "one") -> Document:
    return {"rootModelIdentifier": root, "itemInfoEntries": {"one": {"path": path}}}


def test_a_package_opens(out: Path) -> None:
    _as_package(out, _package("com.apple.CoreML/model.mlmodel"))
    assert open_bundle(out).targets == ("coreml",)


@pytest.mark.parametrize(
    "manifest",
    [
        _package("../../../net.onnx"),
        _package("com.apple.CoreML/other.mlmodel"),
        _package("/etc/passwd"),
        _package(7),
        _package("com.apple.CoreML/model.mlmodel", root="two"),
        {"itemInfoEntries": []},
        [],
    ],
)
def test_a_package_that_leads_elsewhere(out: Path, manifest: object) -> None:
    _as_package(out, manifest)
    with pytest.raises(UnsafeBundleError, match=r"Manifest\.json"):
        open_bundle(out)


# --- whatever happens, only our errors ---


def _append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


FAULTS: dict[str, Callable[[Path], object]] = {
    "manifest is empty": lambda out: (out / "manifest.json").write_bytes(b""),
    "manifest is binary": lambda out: (out / "manifest.json").write_bytes(bytes(range(256))),
    "manifest has a tail": lambda out: _append(out / "manifest.json", b"{}"),
    "manifest is a folder": lambda out: ((out / "manifest.json").unlink(), (out / "manifest.json").mkdir()),
    "programs is a file": lambda out: (
        (out / "assets/labels.txt").unlink(),
        (out / "assets").rmdir(),
        (out / "assets").write_text(""),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_only_our_errors(out: Path, fault: str) -> None:
    FAULTS[fault](out)
    with pytest.raises(SdkError):
        open_bundle(out)


def test_a_file_that_may_not_be_read(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BundleError, match="cannot be opened"):
        open_bundle(out)
