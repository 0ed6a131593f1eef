"""What is refused before a program is evaluated."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from sdk_export.mil.program import Function, operations
from sdk_export.mil.weights import Array
from sdk_runtimes.errors import FeedError, LoweringError

# Handled by the evaluator itself, because they run blocks or touch state.
STRUCTURAL = frozenset({"const", "cond", "while_loop", "read_state", "write_state", "coreml_update_state"})


def refuse_unknown(function: Function) -> None:
    """Refuses a program with operations that are not in our tables.

    Raises:
        LoweringError: names each type, how many there are, and the first of them.
    """
    from sdk_export.mil.table import OPS

    unknown = [op for op in operations(function.block) if op.type not in OPS and op.type not in STRUCTURAL]
    if not unknown:
        return
    counts = Counter(op.type for op in unknown)
    first = {op.type: op.name for op in reversed(unknown)}
    listed = ", ".join(f"{kind!r} ×{count} (first: {first[kind]!r})" for kind, count in counts.items())
    raise LoweringError(
        f"{len(unknown)} operations of {len(counts)} types that the MIL evaluator does not know: {listed}",
        why="what cannot be evaluated cannot be verified",
        fix="add each to the table of its family in sdk_export/mil/ops, or export for another target",
    )


def initial_states(function: Function, states: Mapping[str, Array]) -> dict[str, Array]:
    """The states of a function, zeros where none were given, as Core ML's `make_state` does."""
    declared = {name: kind for name, kind in function.inputs.items() if kind.kind == "state"}
    unknown = sorted(states.keys() - declared.keys())
    if unknown:
        raise FeedError(
            f"unknown states {unknown}", why=f"there are {sorted(declared)}", fix="pass only those"
        )
    initial = {}
    for name, kind in declared.items():
        assert kind.dtype is not None
        shape = tuple(size or 0 for size in kind.shape)
        initial[name] = np.asarray(states.get(name, np.zeros(shape)), dtype=kind.dtype.numpy)
    return initial


def check_feeds(function: Function, feeds: Mapping[str, Array]) -> None:
    """Refuses feeds that do not fit the function's inputs."""
    declared = {name: kind for name, kind in function.inputs.items() if kind.kind != "state"}
    if declared.keys() != feeds.keys():
        raise FeedError(
            f"feeds are {sorted(feeds)}",
            why=f"the program takes {sorted(declared)}",
            fix="feed exactly these",
        )
    for name, kind in declared.items():
        assert kind.dtype is not None
        given = np.asarray(feeds[name])
        fits = given.ndim == len(kind.shape) and all(
            size in (None, has) for size, has in zip(kind.shape, given.shape, strict=False)
        )
        if given.dtype != kind.dtype.numpy or not fits:
            raise FeedError(
                f"feed {name!r} is {given.dtype}{list(given.shape)}",
                why=f"the program takes {kind.dtype.numpy}{list(kind.shape)}",
                fix=f"cast or reshape {name!r}",
            )
