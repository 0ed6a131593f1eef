"""Runs a saved Core ML program with numpy and torch, operation by operation.

What Core ML computes can only be seen on a Mac or a phone. What the *file* says it should compute can be
seen anywhere: this walks the bytes as saved. It is no speed record and promises none.

Precision: a value has the type the program declares for it. Operations on fp16 values are computed in fp32
and rounded to fp16 once, at their outputs, so that an activation which leaves fp16's range (65504) becomes
inf here as it does on the device. Inside one operation (the accumulation of a matmul, the squares of a
layer_norm) we are as exact as fp32 allows, which is kinder than some devices are.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sdk_export.mil.checks import STRUCTURAL, check_feeds, initial_states, refuse_unknown
from sdk_export.mil.package import read_package
from sdk_export.mil.program import Block, Literal, Name, Operation, Program, Type, Value
from sdk_export.mil.weights import Array
from sdk_runtimes.errors import FeedError, SessionError

# Parameters that take a tuple of values, also when it has one element.
VARIADIC = frozenset({"values", "loop_vars", "ref_tensors", "begins", "ends", "end_masks"})


@dataclass(frozen=True)
class _Run:
    """What holds for one evaluation.

    Attributes:
        round_fp16: round to fp16 where fp16 is declared.
        wanted: the names to keep.
        kept: what was kept.
        states: values of the states, replaced as they are written.
    """

    round_fp16: bool
    wanted: frozenset[str]
    states: dict[str, Array]
    kept: dict[str, Array] = field(default_factory=dict)


def evaluate(
    package: Path | Program,
    feeds: Mapping[str, Array],
    *,
    function: str = "main",
    taps: Collection[str] | None = None,
    states: Mapping[str, Array] | None = None,
    round_fp16: bool = True,
) -> dict[str, Array]:
    """Computes what a saved package computes.

    Args:
        package: the `.mlpackage` folder (or its `Manifest.json`), or a program read from one.
        feeds: one array an input, by the names in the package, with the declared types.
        function: which function of a multifunction package.
        taps: names of intermediate values to return as well.
        states: values of the states before the call; zeros where missing. Never changed in place.
        round_fp16: False keeps fp32 where the program declares fp16, which tells an error of rounding
            from an error of conversion.

    Returns:
        Outputs by name, then the taps, then the states after the call.

    Raises:
        FeedError: a feed is missing, unknown, or of the wrong type or shape; or a tap that is no value.
        LoweringError: operations the evaluator does not know, by type, name and count.
        SessionError: an operation could not be run on what it was given.
        IntegrityError: the package is damaged.
    """
    program = package if isinstance(package, Program) else read_package(package)
    entry = program.function(function)
    refuse_unknown(entry)
    check_feeds(entry, feeds)
    wanted = frozenset(taps or ())
    run = _Run(round_fp16, wanted, initial_states(entry, states or {}))
    scope: dict[str, Value] = {name: np.asarray(array) for name, array in feeds.items()}
    run.kept.update({name: scope[name] for name in wanted & scope.keys()})
    with np.errstate(all="ignore"):
        outputs = _run_block(entry.block, scope, run)
    _check_taps(wanted, run)
    return {**dict(zip(entry.block.outputs, outputs, strict=True)), **run.kept, **run.states}


def _run_block(block: Block, scope: dict[str, Value], run: _Run) -> list[Value]:
    """Runs a block in a scope, dropping every value after its last use."""
    for operation, dying in zip(block.operations, block.dying, strict=True):
        results = _run_operation(operation, scope, run)
        for (name, declared), result in zip(operation.outputs, results, strict=True):
            scope[name] = _settled(result, declared, operation, run)
            if name in run.wanted:
                run.kept[name] = scope[name]
        for name in dying:
            scope.pop(name, None)
    return [scope[name] for name in block.outputs]


def _run_operation(operation: Operation, scope: dict[str, Value], run: _Run) -> tuple[Value, ...]:
    """The raw results of one operation."""
    from sdk_export.mil.table import OPS

    arguments = _arguments(operation, scope)
    if operation.type in STRUCTURAL:
        return _STRUCTURE[operation.type](operation, arguments, scope, run)
    arguments.pop("validate_indices", None)  # we always do
    try:
        result = OPS[operation.type](**{key: _widened(value) for key, value in arguments.items()})
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise SessionError(
            f"MIL operation {operation.name!r} ({operation.type}) could not be run: {error}",
            why=f"it was given {_described(arguments)}",
            fix="export again; if it comes back, the conversion of this operation is wrong",
        ) from error
    return result if isinstance(result, tuple) else (result,)


def _arguments(operation: Operation, scope: Mapping[str, Value]) -> dict[str, Value]:
    """The values of an operation's parameters."""
    arguments: dict[str, Value] = {}
    for key, bindings in operation.inputs.items():
        values = tuple(b.value if isinstance(b, Literal) else _looked_up(b, scope) for b in bindings)
        arguments[key] = values if key in VARIADIC else values[0]
    return arguments


def _looked_up(name: Name, scope: Mapping[str, Value]) -> Value:
    return scope.get(name.name, name)  # a state has no value in the scope: its name is passed on


def _widened(value: Value) -> Value:
    """fp16 as fp32: operations compute in fp32."""
    if isinstance(value, tuple):
        return tuple(_widened(item) for item in value)
    if isinstance(value, np.ndarray) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _settled(result: Value, declared: Type, operation: Operation, run: _Run) -> Value:
    """A result in the type and shape that the program declares."""
    if declared.dtype is None or not isinstance(result, np.ndarray | np.generic):
        return result
    held = declared.dtype.numpy
    if held == np.float16 and not run.round_fp16:
        held = np.dtype(np.float32)
    array = np.asarray(result).astype(held, copy=False)
    expected = declared.shape
    if len(expected) != array.ndim or any(
        e not in (None, size) for e, size in zip(expected, array.shape, strict=True)
    ):
        raise SessionError(
            f"MIL operation {operation.name!r} ({operation.type}) gives shape {array.shape}",
            why=f"the program declares {expected}",
            fix="export again; if it comes back, the conversion of this operation is wrong",
        )
    return array


def _described(arguments: Mapping[str, Value]) -> str:
    """Types and shapes of arguments, for messages."""

    def one(value: Value) -> str:
        if isinstance(value, np.ndarray):
            return f"{value.dtype}{list(value.shape)}"
        return repr(value) if not isinstance(value, tuple) else f"({', '.join(map(one, value))})"

    return ", ".join(f"{key}={one(value)}" for key, value in arguments.items()) or "nothing"


def _const(
    operation: Operation, arguments: dict[str, Value], scope: dict[str, Value], run: _Run
) -> tuple[Value, ...]:
    """`const`: the value that stands in the program or in its weight file."""
    del operation, scope, run
    return (arguments["val"],)


def _cond(
    operation: Operation, arguments: dict[str, Value], scope: dict[str, Value], run: _Run
) -> tuple[Value, ...]:
    """`cond`: runs the first block if `pred`, else the second."""
    chosen = operation.blocks[0 if bool(arguments["pred"]) else 1]
    return tuple(_run_block(chosen, dict(scope), run))


def _while_loop(
    operation: Operation, arguments: dict[str, Value], scope: dict[str, Value], run: _Run
) -> tuple[Value, ...]:
    """`while_loop`: as long as the first block says so, the second maps the loop variables to new ones."""
    condition, body = operation.blocks
    variables = list(arguments["loop_vars"])
    while bool(
        _run_block(condition, {**scope, **dict(zip(condition.inputs, variables, strict=True))}, run)[0]
    ):
        variables = _run_block(body, {**scope, **dict(zip(body.inputs, variables, strict=True))}, run)
    return tuple(variables)


def _read_state(
    operation: Operation, arguments: dict[str, Value], scope: dict[str, Value], run: _Run
) -> tuple[Value, ...]:
    """`read_state`: the state's value now."""
    del operation, scope
    return (run.states[arguments["input"].name],)


def _write_state(
    operation: Operation, arguments: dict[str, Value], scope: dict[str, Value], run: _Run
) -> tuple[Value, ...]:
    """`write_state` (`coreml_update_state` before it is saved): replaces the state's value."""
    del scope
    state = arguments.get("input", arguments.get("state"))
    value = arguments.get("data", arguments.get("value"))
    assert isinstance(state, Name)
    run.states[state.name] = np.asarray(value)
    return (value,) if operation.outputs else ()


_STRUCTURE = {
    "const": _const,
    "cond": _cond,
    "while_loop": _while_loop,
    "read_state": _read_state,
    "write_state": _write_state,
    "coreml_update_state": _write_state,
}


def _check_taps(wanted: frozenset[str], run: _Run) -> None:
    missing = sorted(wanted - run.kept.keys())
    if missing:
        raise FeedError(
            f"no value is called {missing}",
            why="taps are names of values in the program, and blocks not taken have none",
            fix="list them with sdk_export.mil.program.operations",
        )
