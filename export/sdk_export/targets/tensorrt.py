"""Target "tensorrt": an ONNX file checked op by op against TensorRT; the engine is built where it runs.

Engines are tied to a GPU, a driver and a version, so what travels is the graph. It is strongly typed: every
dtype is written down with explicit casts, and inputs and outputs keep their own. Shape ranges travel as a
profile in the program's options.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdk_export.captured import Source
from sdk_export.tensorrt_support import check, refusal
from sdk_runtimes.errors import LoweringError
from sdk_runtimes.specs import Dim, SymbolRange

if TYPE_CHECKING:
    import onnx_ir as ir

PRECISIONS = ("fp32", "fp16", "bf16")

VERSION = 10
"""The oldest major version that our extra installs; what it takes, 11 takes too."""

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_MOVERS = frozenset({"Cast", "Transpose", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Concat", "Expand"})

PROFILE = "profile"
"""Key of `ProgramSpec.options`: JSON, input name -> {"min", "opt", "max"} -> shape."""


def write(captured: Source, precision: str, folder: Path) -> tuple[str, ...]:
    """Writes `<name>.trt.onnx` and, for large weights, `<name>.trt.onnx.data`.

    Raises:
        LoweringError: an op, dtype or form that TensorRT's parser refuses; lists them all.
    """
    from sdk_export.targets.onnx import save_model

    return save_model(build_checked(captured, precision), folder, f"{captured.name}.trt.onnx")


def build_checked(captured: Source, precision: str) -> "ir.Model":
    """Lowers for TensorRT.

    An op that TensorRT lacks in the low precision (HardSwish and Mish in bf16, for one) is computed in fp32,
    and so is what moves data to and from a recurrent op.

    Raises:
        LoweringError: what TensorRT's parser refuses.
    """
    from sdk_export.onnx_lowering import build_model

    model = build_model(captured, precision)
    issues = check(model, version=VERSION)
    promoted = frozenset(issue.node for issue in issues if issue.is_dtype) | _beside_recurrence(model)
    if precision != "fp32" and promoted:
        model = build_model(replace(captured, keep_fp32=captured.keep_fp32 | promoted), precision)
        issues = check(model, version=VERSION)
    if issues:
        raise refusal(captured.name, issues, VERSION)
    return model


def _beside_recurrence(model: "ir.Model") -> frozenset[str]:
    """Names of the nodes that only move data into or out of a recurrent op.

    TensorRT-RTX 1.7 fails to compile a GRU (which stays fp32) between casts and transposes of fp16; and
    rounding what is widened again at once has no use.
    """
    recurrent = [node for node in model.graph if node.op_type in _RECURRENT]
    names: set[str] = set()
    for node in recurrent:
        names |= _movers((value.producer() for value in node.inputs if value is not None), up=True)
        names |= _movers((use.node for value in node.outputs for use in value.uses()), up=False)
    return frozenset(names)


def _movers(nodes: "Iterable[ir.Node | None]", *, up: bool) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if node is None or node.op_type not in _MOVERS:
            continue
        if node.op_type != "Cast" and node.name is not None:
            found.add(node.name)
        if up:
            found |= _movers((value.producer() for value in node.inputs if value is not None), up=True)
        else:
            found |= _movers((use.node for value in node.outputs for use in value.uses()), up=False)
    return found


def profile_options(captured: Source) -> dict[str, str]:
    """The ranges of dynamic inputs as TensorRT's optimisation profile, for `ProgramSpec.options`.

    The engine is tuned for the sample shapes ("opt") and takes all between "min" and "max".

    Raises:
        LoweringError: a symbol without a range.
    """
    ranges = {item.symbol: item for item in captured.symbols}
    profile = {
        spec.name: {
            "min": [_bound(dim, ranges, captured.name).minimum for dim in spec.shape],
            "opt": list(captured.samples[spec.name].shape),
            "max": [_bound(dim, ranges, captured.name).maximum for dim in spec.shape],
        }
        for spec in captured.inputs
        if not spec.is_static
    }
    return {PROFILE: json.dumps(profile, sort_keys=True)} if profile else {}


def _bound(dim: Dim, ranges: Mapping[str, SymbolRange], name: str) -> SymbolRange:
    if isinstance(dim, int):
        return SymbolRange("", dim, dim)
    if dim not in ranges:
        raise LoweringError(
            f"axis {dim!r} of {name!r} has no range",
            why="TensorRT plans its memory for the largest shape",
            fix=f"dynamic_shapes={{'<input>': {{<axis>: ('{dim}', 1, 8)}}}}",
        )
    return ranges[dim]


def module_values(captured: Source, precision: str) -> dict[str, str]:
    """Module path -> name of its last value in the file."""
    from sdk_export.onnx_lowering import last_values

    return last_values(build_checked(captured, precision).graph)
