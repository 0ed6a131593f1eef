"""A foreign ONNX file as a source: checked under limits, then held to itself in fp32 on ONNX Runtime."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdk_export.captured import Arrays, CapturedOnnx
from sdk_export.dims import DEFAULT_MAXIMUM, read_bounds
from sdk_runtimes.errors import ArgumentError, FeedError, SampleInputsError, SessionError
from sdk_runtimes.feeds import Array, FeedCheck
from sdk_runtimes.onnx_wire import check_onnx_file
from sdk_runtimes.specs import DTYPES, Dim, SymbolRange, TensorSpec

# ONNX Runtime's names of element types that differ from numpy's
_DTYPES = {"float": "float32", "double": "float64"}

_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_INPUT, _OUTPUT = "dim_", "u"  # "u0": a size that no input tells, as torch calls it
_INVENTED = re.compile(r"(dim_|u)\d+")


def capture_onnx(
    path: Path, *, name: str | None = None, sample_inputs: object = None, dynamic_shapes: object = None
) -> CapturedOnnx:
    """Reads an ONNX file that another tool wrote.

    Args:
        path: the file; its external data lies beside it.
        name: of the program; the file's stem by default.
        sample_inputs: arrays by input name, or in order. Float inputs are drawn when it is None.
        dynamic_shapes: `{input: {axis: (symbol, minimum, maximum)}}`, ranges for symbols of the file.

    Raises:
        ArgumentError: there is no such file.
        UnsafeBundleError: the file breaks our limits.
        SampleInputsError: an integer input without a sample, or samples that do not fit.
    """
    if not path.is_file():
        raise ArgumentError(f"there is no file {str(path)!r}")
    check_onnx_file(path, allowed_files=[item.name for item in path.parent.iterdir() if item.is_file()])
    engine = _engine(path)
    names: dict[object, str] = {}
    inputs = tuple(_spec(item, names, _INPUT) for item in engine.get_inputs())
    outputs = tuple(_spec(item, names, _OUTPUT) for item in engine.get_outputs())
    symbols = _ranges(inputs, dynamic_shapes)
    samples = _samples(inputs, symbols, sample_inputs)

    def reference(feeds: Arrays) -> dict[str, Array]:
        try:
            results = engine.run(None, dict(feeds))
        except Exception as error:
            raise SampleInputsError(f"{path.name} fails on its inputs: {error}") from error
        return dict(zip([spec.name for spec in outputs], results, strict=True))

    return CapturedOnnx(name or path.stem, path, inputs, outputs, symbols, samples, reference)


def _engine(path: Path) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    # As written: the reference must not share a rewrite with what it judges.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SessionError(f"ONNX Runtime did not load {path.name}: {error}") from error


def _spec(item: Any, symbols: dict[object, str], invented: str) -> TensorSpec:
    element = item.type.removeprefix("tensor(").removesuffix(")")
    dtype = _DTYPES.get(element, element)
    if dtype not in DTYPES:
        raise ArgumentError(
            f"{item.name!r} is {item.type}", why=f"a border tensor is one of {', '.join(DTYPES)}"
        )
    dims = tuple(_dim(dim, symbols, invented) for dim in item.shape)
    return TensorSpec(item.name, dtype, dims)


def _dim(given: int | str | None, symbols: dict[object, str], invented: str) -> Dim:
    """The size of an axis under a name that is one: files call axes anything, and sympy evaluates symbols.

    Args:
        given: as the file has it.
        symbols: what the file says -> our name; a new one is added.
        invented: how names of ours begin.
    """
    if isinstance(given, int):
        return given
    key: object = given or object()  # two axes without a name are not one
    if key not in symbols:
        legal = given and invented == _INPUT and _SYMBOL.fullmatch(given) and not _INVENTED.fullmatch(given)
        symbols[key] = given if legal and given else f"{invented}{len(symbols)}"
    return symbols[key]


def _ranges(inputs: tuple[TensorSpec, ...], dynamic_shapes: object) -> tuple[SymbolRange, ...]:
    if not isinstance(dynamic_shapes, Mapping | None):
        raise _unreadable("dynamic_shapes", dynamic_shapes)
    given: dict[str, SymbolRange] = {}
    for name, axes in (dynamic_shapes or {}).items():
        spec = next((item for item in inputs if item.name == name), None)
        if not isinstance(axes, Mapping):
            raise _unreadable(f"dynamic_shapes[{name!r}]", axes)
        for axis, bounds in axes.items():
            dim = spec.shape[axis] if spec and axis in range(len(spec.shape)) else None
            if not isinstance(dim, str):
                raise ArgumentError(
                    f"dynamic_shapes[{name!r}][{axis}] is not dynamic in the file",
                    why=f"the inputs are {', '.join(map(str, inputs))}",
                )
            read = read_bounds(bounds)
            given[dim] = SymbolRange(dim, read.minimum, read.maximum)
    used = dict.fromkeys(dim for spec in inputs for dim in spec.shape if isinstance(dim, str))
    return tuple(given.get(symbol, SymbolRange(symbol, 1, DEFAULT_MAXIMUM)) for symbol in used)


def _unreadable(what: str, given: object) -> ArgumentError:
    return ArgumentError(
        f"{what} is {given!r}",
        why="it maps input names to their dynamic axes",
        fix="dynamic_shapes={'x': {0: ('batch', 1, 8)}}",
    )


def _samples(
    inputs: tuple[TensorSpec, ...], symbols: tuple[SymbolRange, ...], given: object
) -> dict[str, Array]:
    if given is None:
        sizes = {item.symbol: item.minimum for item in symbols}
        return {spec.name: _drawn(spec, sizes, i) for i, spec in enumerate(inputs)}
    if not isinstance(given, Mapping):
        values = given if isinstance(given, tuple | list) else (given,)
        given = dict(zip([spec.name for spec in inputs], values, strict=False))
    arrays = {str(name): np.asarray(value) for name, value in given.items()}
    try:
        FeedCheck(inputs, symbols).ordered(arrays)
    except FeedError as error:
        raise SampleInputsError("the sample inputs do not fit the ONNX file", why=str(error)) from error
    return arrays


def _drawn(spec: TensorSpec, sizes: Mapping[str, int], seed: int) -> Array:
    if DTYPES[spec.dtype].kind != "f":
        raise SampleInputsError(
            f"input {spec} needs a sample",
            why="integers and booleans mean something: an id, a mask; drawn ones would not",
            fix=f"sdk.export(path, sample_inputs={{{spec.name!r}: array, …}})",
        )
    shape = [sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape]
    return np.random.default_rng(seed).standard_normal(shape).astype(spec.dtype)
