"""Reads a `.pt2` file without ever running what is in it.

torch.export.load unpickles odd weights, constants and sample inputs, falls back to an older format that is a
pickle as a whole, loads the native libraries of compiled models, evaluates expressions of symbolic sizes, and
takes any attribute of torch for an op. So the archive is looked through first, with torch's own reader, so
that both see the same bytes, and what is not on the lists below is refused.
"""

import ast
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader

from sdk_runtimes.errors import ArgumentError, UnsafeBundleError

_CONFIG_MAX_BYTES = 64 << 20
_PROGRAM = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
# Files that torch.export.save writes; torch reads them as JSON, raw numbers or text, `_SAMPLES` aside.
_FILES = re.compile(
    r"(models/model\.json|data/sample_inputs/model\.pt|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|archive_format|archive_version|version"
    r"|byteorder|\.data/\w+|\.format_version|\.storage_alignment|extra/.+)"
)
_PLAIN = re.compile(r"(weight|tensor)_\d+")

# Ops of torch's own namespaces: `torch.ops.load_library` and `torch.hub.load` are attributes of torch too.
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|quantized|quantized_decomposed)\.\w+(\.[A-Za-z]\w*)?"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pos|pow|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|xor"
    r"|lshift|rshift|getitem)|math\.[a-z]\w*|torch\.sym_[a-z]\w*"
)
_EXPRESSION = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.Compare, ast.cmpop),
    *(ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.BoolOp, ast.boolop),
)


def load_pt2(path: Path) -> ExportedProgram:
    """An exported program from a file.

    Raises:
        ArgumentError: there is no such file, or it is no archive of torch.export.save.
        UnsafeBundleError: it holds pickled objects, native code, or expressions and ops that are none.
    """
    # torch.export.load itself would go on to the old format where this one fails.
    from torch.export.pt2_archive._package import load_pt2 as load

    if not path.is_file():
        raise ArgumentError(
            f"there is no file {str(path)!r}", fix="torch.export.save(program, path) writes one"
        )
    _refuse_unsafe(_reader(path), path)
    try:
        program: ExportedProgram = load(str(path)).exported_programs["model"]
    except Exception as error:  # a damaged archive fails anywhere in torch, with whatever Python raises
        raise ArgumentError(
            f"torch cannot read {str(path)!r}",
            why=f"{type(error).__name__}: {error}",
            fix="torch.export.save the program again with this version of torch",
        ) from error
    return program


def _reader(path: Path) -> PT2ArchiveReader:
    try:
        reader = PT2ArchiveReader(str(path))
        reader.get_file_names()  # fails where a file lies outside the one folder
    except (RuntimeError, AssertionError) as error:
        if "archive_format" in str(error) or isinstance(error, AssertionError):
            raise UnsafeBundleError(
                f"{str(path)!r} is a .pt2 of an old format",
                why="its weights are a pickle, and a pickle runs code",
                fix="load it where you trust it, and torch.export.save it again with torch 2.8 or newer",
            ) from error
        raise ArgumentError(
            f"{str(path)!r} is no .pt2 archive",
            why=str(error).splitlines()[0],
            fix="torch.export.save(program, path) writes one",
        ) from error
    return reader


def _refuse_unsafe(reader: PT2ArchiveReader, path: Path) -> None:
    names = reader.get_file_names()
    strange = [name for name in names if not _FILES.fullmatch(name)]
    # torch finds a file whatever the case of its name.
    if strange or len({name.lower() for name in names}) != len(names):
        raise UnsafeBundleError(
            f"{path.name} holds {strange[0]!r}" if strange else f"{path.name} holds a file twice",
            why="torch.export.save does not write it; it may be a pickle or native code",
            fix="torch.export.save the program again, without compiled models",
        )
    if missing := sorted({_PROGRAM, _SAMPLES, *_CONFIGS} - set(names)):
        raise ArgumentError(
            f"{path.name} lacks {missing[0]!r}",
            why="it is not whole",
            fix="torch.export.save the program again",
        )
    for name in _CONFIGS:
        _refuse_config(_json(reader, name), name, path)
    _refuse_samples(reader.read_bytes(_SAMPLES), path)
    _refuse_program(_json(reader, _PROGRAM), path)


def _json(reader: PT2ArchiveReader, name: str) -> Any:
    if reader.archive_file.get_record_size(name) > _CONFIG_MAX_BYTES:
        raise UnsafeBundleError(f"{name} is larger than {_CONFIG_MAX_BYTES} bytes")
    try:
        return json.loads(reader.read_bytes(name))
    except (ValueError, RecursionError) as error:
        raise UnsafeBundleError(f"{name} is not JSON", why=str(error)) from error


def _refuse_config(content: Any, name: str, path: Path) -> None:
    entries = content.get("config") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise UnsafeBundleError(f"{path.name}:{name} has no table", why="torch.export.save writes one")
    for key, entry in entries.items():
        file = str(entry.get("path_name")) if isinstance(entry, dict) else ""
        if not _PLAIN.fullmatch(file) or entry.get("use_pickle") is not False:
            raise UnsafeBundleError(
                f"{key!r} in {path.name}:{name} is pickled",
                why="a pickle runs code when it is read",
                fix="save the program again with plain dense tensors as weights and constants",
            )


def _refuse_samples(data: bytes, path: Path) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:
        raise UnsafeBundleError(
            f"{path.name}:{_SAMPLES} holds more than tensors and plain values",
            why=f"torch would unpickle it: {type(error).__name__}",
            fix="save the program again with plain sample inputs",
        ) from error


def _refuse_program(content: Any, path: Path) -> None:
    """Looks at whatever torch evaluates or looks up by name, at any depth."""
    ranges = content.get("range_constraints") if isinstance(content, dict) else None
    found = [("expr_str", symbol) for symbol in ranges or {}]
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found += [(key, item) for key, item in value.items() if key in _RULES and item is not None]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    for key, item in found:
        if not isinstance(item, str) or not _RULES[key](item):
            raise UnsafeBundleError(
                f"{path.name}:{_PROGRAM} holds {str(item)[:80]!r} as {key}",
                why="torch would run it, and it is neither an op of torch's nor a size",
                fix="torch.export.save the program again; ops of other libraries cannot be lowered",
            )


def _is_target(text: str) -> bool:
    return bool(_TARGET.fullmatch(text))


def _is_size(text: str) -> bool:
    """Whether this is arithmetic over sympy's classes, symbols and numbers."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_harmless(node) for node in ast.walk(tree))


def _is_harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id[:1].isupper()
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or node.value.isidentifier()
    return isinstance(node, _EXPRESSION)


# key in the program's JSON -> whether a value of it may be given to torch
_RULES: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {"target": _is_target, "as_operator": _is_target, "expr_str": _is_size}
)
