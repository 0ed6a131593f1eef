"""Turns a torch.export failure into an error that names the op, the module and the line."""

import linecache
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from sdk_runtimes.errors import TraceError

_OP = re.compile(r"(?:torch\.ops\.)?(aten[.:]+\w+(?:\.\w+)?)")
_TORCH = str(Path(torch.__file__).parent)

# what the message holds -> what to do about it
_FIXES = (
    (
        "data-dependent",
        "a branch or shape depends on tensor values: use torch.where or torch.cond, or make it an argument",
    ),
    (
        "Constraints violated",
        "widen or drop the dynamic dimension: dynamic_shapes={'x': {0: ('batch', 1, 8)}}",
    ),
    (
        "specialized",
        "the code fixes this dimension: drop it from dynamic_shapes, or write the code without its number",
    ),
    ("unsupported", "return tensors, dicts, tuples or dataclasses from forward"),
)
_DEFAULT_FIX = "rewrite this line with tensor operations; torch.export.draft_export(model, args) reports more"


@dataclass(frozen=True)
class Place:
    """Where in the user's code a trace failed."""

    module: str
    file: str
    line: int
    source: str


def trace_error(model: nn.Module, error: Exception) -> TraceError:
    """The error to raise in place of torch's.

    Args:
        model: what was traced.
        error: what torch.export raised.
    """
    place, op = _innermost(model, error)
    message = str(error).strip()
    named = _OP.search(message)
    op = named.group(1) if named else op
    where = [f"op {op}"] if op else []
    if place:
        where.append(f"module {place.module or '(the model itself)'}")
        where.append(f"line {place.file}:{place.line}: {place.source}")
    fix = next((fix for sign, fix in _FIXES if sign.lower() in message.lower()), _DEFAULT_FIX)
    return TraceError(
        f"{type(model).__name__} cannot be traced" + (f" at {', '.join(where)}" if where else ""),
        why=f"{type(error).__name__}: {_first_lines(message)}",
        fix=fix,
    )


def _innermost(model: nn.Module, error: BaseException) -> tuple[Place | None, str]:
    """The innermost frame outside torch with the path of the module it runs in, and the op it called."""
    paths = {id(module): path for path, module in model.named_modules()}
    place, op, module, inside = None, "", "", False
    for frame, line in _frames(error):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths:
            module, inside = paths[id(owner)], True
        file = frame.f_code.co_filename
        if inside and not file.startswith(_TORCH):
            place, op = Place(module, file, line, linecache.getline(file, line).strip()), ""
        if inside and not op and callable(frame.f_locals.get("func")):
            op = _op_name(frame.f_locals["func"])
    return place, op


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Frames of an error and of its causes, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        trace = cause.__traceback__
        while trace is not None:
            yield trace.tb_frame, trace.tb_lineno
            trace = trace.tb_next
        cause = cause.__cause__ or cause.__context__


def _op_name(function: object) -> str:
    if isinstance(function, torch._ops.OpOverload):
        return str(function)
    return str(getattr(function, "__qualname__", None) or getattr(function, "__name__", function))


def _first_lines(message: str, count: int = 3) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines[:count])
