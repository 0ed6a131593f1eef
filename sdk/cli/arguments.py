"""The small grammars of the command line, parsed."""

import importlib
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdk_runtimes.errors import ArgumentError, UnknownChoiceError

_SOURCE = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)", re.ASCII)
_DYNAMIC = re.compile(
    r"(?P<input>[^=]+)\.(?P<axis>\d+)=(?P<symbol>[A-Za-z_]\w*)(?::(?P<minimum>\d+):(?P<maximum>\d+))?",
    re.ASCII,
)
_SIZE = re.compile(r"(?P<symbol>[A-Za-z_]\w*)=(?P<size>\d+)", re.ASCII)


@dataclass(frozen=True)
class DynamicAxis:
    """`x.0=batch:1:8`: axis 0 of input `x` is the symbol `batch`, 1 to 8 long.

    Attributes:
        input: the parameter name of `forward`; nested ones joined with a dot.
        axis: counted from 0.
        symbol: its name; the same symbol in two places is the same size.
        bounds: least and largest size; None leaves them to `sdk.export`.
    """

    input: str
    axis: int
    symbol: str
    bounds: tuple[int, int] | None = None


def parse_dynamic(text: str) -> DynamicAxis:
    """Reads `INPUT.AXIS=SYMBOL[:MIN:MAX]`.

    Raises:
        ArgumentError: it does not follow the grammar, or the minimum is above the maximum.
    """
    found = _DYNAMIC.fullmatch(text)
    if not found:
        raise ArgumentError(
            f"--dynamic {text!r} cannot be read",
            why="it is INPUT.AXIS=SYMBOL or INPUT.AXIS=SYMBOL:MIN:MAX",
            fix="--dynamic x.0=batch:1:8",
        )
    bounds = (int(found["minimum"]), int(found["maximum"])) if found["minimum"] else None
    if bounds and bounds[0] > bounds[1]:
        raise ArgumentError(
            f"--dynamic {text!r} has a minimum above its maximum",
            why="no size lies between them",
            fix=f"--dynamic {found['input']}.{found['axis']}={found['symbol']}:{bounds[1]}:{bounds[0]}",
        )
    return DynamicAxis(found["input"], int(found["axis"]), found["symbol"], bounds)


def parse_sizes(texts: Iterable[str]) -> dict[str, int]:
    """Reads `SYMBOL=SIZE`.

    Raises:
        ArgumentError: it does not follow the grammar.
    """
    sizes = {}
    for text in texts:
        found = _SIZE.fullmatch(text)
        if not found:
            raise ArgumentError(
                f"--size {text!r} cannot be read", why="it is SYMBOL=SIZE", fix="--size batch=4"
            )
        sizes[found["symbol"]] = int(found["size"])
    return sizes


def split_names(texts: Iterable[str]) -> list[str]:
    """`["onnx,openvino", "coreml"]` -> `["onnx", "openvino", "coreml"]`, each once."""
    names = (name.strip() for text in texts for name in text.split(","))
    return list(dict.fromkeys(name for name in names if name))


def import_function(source: str) -> Callable[[], Any]:
    """The function that `module:function` names, importable from the working directory.

    Raises:
        ArgumentError: not of that form, or no such module.
        UnknownChoiceError: the module has no such function; lists those it has.
    """
    found = _SOURCE.fullmatch(source)
    if not found:
        raise ArgumentError(
            f"{source!r} names no model",
            why="it is neither MODULE:FUNCTION nor an .onnx or .pt2 file",
            fix="edge-sdk export my_model:build, where build() returns (model, sample_inputs)",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(found["module"])
    except ModuleNotFoundError as error:
        raise ArgumentError(
            f"module {found['module']!r} cannot be imported",
            why=str(error),
            fix="run edge-sdk in the folder of the module, or install its package",
        ) from error
    function = getattr(module, found["function"], None)
    if not callable(function):
        raise UnknownChoiceError(f"function in {found['module']!r}", found["function"], _functions(module))
    result: Callable[[], Any] = function
    return result


def build_model(source: str) -> tuple[Any, Any]:
    """Calls `module:function`.

    Returns:
        The model, and the `sample_inputs` for `sdk.export`: None where the function gives a bare model.

    Raises:
        ArgumentError: the function returned a tuple that is not a pair.
    """
    built = import_function(source)()
    if not isinstance(built, tuple):
        return built, None
    if len(built) != 2:
        raise ArgumentError(
            f"{source} returned {len(built)} values",
            why="it shall return a model, or (model, sample_inputs)",
            fix="return model, (x, y)",
        )
    model, samples = built
    return model, samples


def dynamic_shapes(axes: Iterable[DynamicAxis]) -> dict[str, dict[int, str | tuple[str, int, int]]] | None:
    """The form that `sdk.export` takes: flat input name -> axis -> symbol, with its range where one is given.

    Raises:
        ArgumentError: one symbol with two ranges.
    """
    shapes: dict[str, dict[int, str | tuple[str, int, int]]] = {}
    first: dict[str, DynamicAxis] = {}
    for axis in axes:
        known = first.setdefault(axis.symbol, axis)
        if known.bounds != axis.bounds:
            raise ArgumentError(
                f"symbol {axis.symbol!r} has two ranges",
                why=f"{known.bounds} at {known.input!r}, {axis.bounds} at {axis.input!r}",
                fix="give the same range, or another name to the second",
            )
        shapes.setdefault(axis.input, {})[axis.axis] = (
            (axis.symbol, *axis.bounds) if axis.bounds else axis.symbol
        )
    return shapes or None


def _functions(module: object) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
