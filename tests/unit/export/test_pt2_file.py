"""A `.pt2` file is read without running anything that is in it."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sdk
from sdk_export.pt2_file import load_pt2
from sdk_runtimes.errors import ArgumentError, SdkError, UnsafeBundleError

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 3)
        self.register_buffer("shift", torch.arange(3.0))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.mix(x) + self.shift + torch.tensor([1.0, 2.0, 3.0])}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    dims = {"x": {0: torch.export.Dim("batch", min=1, max=8)}}
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Net(), (X,), dynamic_shapes=dims), path)
    return path


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path):
    """What a bomb makes; after the test it must not be there."""
    path = tmp_path / "exploded"
    yield path
    assert not path.exists()


def pickled(mark: Path) -> bytes:
    """As torch.save writes it: a zip with a pickle in it."""
    buffer = io.BytesIO()
    torch.save(Bomb(mark), buffer)
    return buffer.getvalue()


def rewritten(path: Path, change) -> Path:
    """The archive with its files changed: `change` gets {name below the root: bytes}."""
    with zipfile.ZipFile(path) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"net/{name}", data)
    return path


def edited(path: Path, name: str, change) -> Path:
    def edit(files: dict[str, bytes]) -> None:
        content = json.loads(files[name])
        change(content)
        files[name] = json.dumps(content).encode()

    return rewritten(path, edit)


WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
PROGRAM = "models/model.json"


def refused(path: Path, kind: type[SdkError] = UnsafeBundleError) -> SdkError:
    with pytest.raises(SdkError) as caught:
        load_pt2(path)
    assert type(caught.value) is kind
    assert caught.value.why
    assert caught.value.fix
    return caught.value


def test_a_bomb_explodes_where_nobody_looks(tmp_path):
    """The bomb of the tests below is one."""
    torch.load(io.BytesIO(pickled(tmp_path / "bang")), weights_only=False)
    assert (tmp_path / "bang").exists()


def test_a_rewritten_archive_is_still_read(file):
    program = load_pt2(rewritten(file, lambda files: None))
    expected = load_pt2(file).module(check_guards=False)(X)["logits"]
    assert torch.equal(program.module(check_guards=False)(X)["logits"], expected)


def test_a_pickled_weight_is_refused(file, mark):
    def plant(files):
        content = json.loads(files[WEIGHTS])
        content["config"]["mix.weight"]["use_pickle"] = True
        files[WEIGHTS] = json.dumps(content).encode()
        files["data/weights/weight_0"] = pickled(mark)

    assert "mix.weight" in refused(rewritten(file, plant)).what


@pytest.mark.parametrize("name", ["custom_obj_0", "opaque_obj_0"])
def test_a_custom_object_is_refused(file, mark, name):
    def plant(files):
        entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        files[CONSTANTS] = json.dumps({"config": {"thing": entry}}).encode()
        files[f"data/constants/{name}"] = pickled(mark)

    refused(rewritten(file, plant))


@pytest.mark.parametrize("name", ["data/weights/model.pt", "data/constants/model.pt"])
def test_weights_of_a_legacy_name_are_refused(file, mark, name):
    assert name in refused(rewritten(file, lambda files: files.update({name: pickled(mark)}))).what


def test_pickled_sample_inputs_are_refused(file, mark):
    name = "data/sample_inputs/model.pt"
    assert name in refused(rewritten(file, lambda files: files.update({name: pickled(mark)}))).what


def old_format(path: Path, mark: Path, mode: str = "w") -> Path:
    with zipfile.ZipFile(path, mode) as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", "{}")
        for part in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{part}.pt", pickled(mark))
    return path


def test_the_old_format_is_refused(tmp_path, mark):
    with pytest.raises(SdkError):
        load_pt2(old_format(tmp_path / "old.pt2", mark))


def test_the_old_format_behind_a_broken_new_one_is_refused(file, mark):
    """torch.export.load tries the old one when the new one fails."""
    rewritten(file, lambda files: files.update({PROGRAM: b"{}"}))
    with pytest.raises(SdkError):
        load_pt2(old_format(file, mark, "a"))


def test_native_code_of_a_compiled_model_is_refused(file):
    library = "data/aotinductor/model/model.so"
    assert library in refused(rewritten(file, lambda files: files.update({library: b"\x7fELF"}))).what


def test_a_name_in_other_letters_is_refused(file):
    name = WEIGHTS.replace("model", "MODEL")
    refused(rewritten(file, lambda files: files.update({name: files[WEIGHTS]})))


EXPRESSIONS = [
    "__import__('os').mkdir('{mark}')",
    "Symbol('x').func.__class__",
    'Symbol(\'__import__("os").mkdir("{mark}")\')',
    "sympify('x')",
    "[c for c in ()]",
    "(lambda: 0)()",
    "x if y else z",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_size_that_is_a_program_is_refused(file, mark, expression):
    text = expression.replace("{mark}", str(mark))

    def plant(content):
        (place,) = content["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][:1]
        place["as_expr"]["expr_str"] = text

    assert "expr_str" in refused(edited(file, PROGRAM, plant)).what


def test_a_range_that_is_a_program_is_refused(file, mark):
    bounds = {"min_val": 1, "max_val": 8}
    text = f"__import__('os').mkdir('{mark}')"
    refused(edited(file, PROGRAM, lambda content: content["range_constraints"].update({text: bounds})))


@pytest.mark.parametrize(
    "target",
    [
        *(
            "torch.os.system",
            "torch.hub.load",
            "torch.load",
            "torch.ops.load_library",
            "_operator.methodcaller",
        ),
        *("torch.ops.load_library.call", "os.system", "math.__loader__.load_module", "torch.ops.mine.own"),
    ],
)
def test_an_op_that_is_none_is_refused(file, target):
    def plant(content):
        content["graph_module"]["graph"]["nodes"][0]["target"] = target

    assert target in refused(edited(file, PROGRAM, plant)).what


@pytest.mark.parametrize("name", [PROGRAM, WEIGHTS, CONSTANTS])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_what_is_no_table_is_one_of_our_errors(file, name, data):
    with pytest.raises(SdkError):
        load_pt2(rewritten(file, lambda files: files.update({name: data})))


@pytest.mark.parametrize("name", [PROGRAM, WEIGHTS, CONSTANTS, "data/weights/weight_0"])
def test_what_is_missing_is_one_of_our_errors(file, name):
    refused(rewritten(file, lambda files: files.pop(name)), ArgumentError)


def test_a_truncated_file_is_one_of_our_errors(file):
    file.write_bytes(file.read_bytes()[:-100])
    refused(file, ArgumentError)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(b"not a zip")
    assert "no .pt2 archive" in refused(path, ArgumentError).what


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="there is no file"):
        load_pt2(tmp_path / "net.pt2")


def test_a_pt2_file_is_exported_and_right(file, tmp_path):
    torch.manual_seed(0)
    expected = Net()(torch.ones(3, 4))["logits"].detach().numpy()
    bundle = sdk.export(file, tmp_path / "out", precision="fp32")
    assert bundle.program().name == "net"
    assert bundle.program().inputs[0].shape[1:] == (4,)
    with sdk.load(tmp_path / "out") as session:
        got = session.run({"x": np.ones((3, 4), np.float32)})
    np.testing.assert_allclose(got["logits"], expected, rtol=1e-5, atol=1e-6)
