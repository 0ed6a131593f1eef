"""Runs a traced graph node by node, so that features can be read and changed on the way."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from sdk_pruning.tracing import Traced

Values = dict[str, Any]
"""node name -> what it computed."""


def operation_name(node: fx.Node) -> str:
    """`relu_` and `relu.default` are both "relu"; Python operators keep their name."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.removeprefix("aten::")
        return name.removesuffix("_") if _writes(target) else name
    return getattr(target, "__name__", str(target))


def evaluate(node: fx.Node, values: Values) -> Any:
    """Computes one node from the values before it.

    What it would write in place, it returns; readers of the written tensor see the new one, as in eager
    PyTorch.
    """
    args = fx.map_arg(node.args, lambda arg: values[arg.name])
    kwargs = fx.map_arg(node.kwargs, lambda arg: values[arg.name])
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and _writes(target):
        written = node.args[0]
        assert isinstance(written, fx.Node), "an operation writes into a tensor"
        result = target(values[written.name].clone(), *args[1:], **kwargs)
        values[written.name] = result
        return result
    assert callable(target), "call_function nodes call a function"
    return target(*args, **kwargs)


def _writes(target: torch._ops.OpOverload) -> bool:
    return target._schema.is_mutable


def last_readers(traced: Traced) -> Mapping[str, list[str]]:
    """Node -> values that nobody reads after it."""
    last: dict[str, str] = {}
    for node in traced.graph.nodes:
        for used in node.all_input_nodes:
            last[used.name] = node.name
    done = defaultdict(list)
    for used, reader in last.items():
        done[reader].append(used)
    return done


def run(
    traced: Traced,
    state: Mapping[str, Tensor],
    feeds: Mapping[str, Any],
    *,
    view: Callable[[fx.Node, Values], Values] | None = None,
    after: Callable[[fx.Node, Any], Any] | None = None,
) -> list[Any]:
    """One forward pass.

    Args:
        traced: the graph.
        state: parameter or buffer name -> tensor.
        feeds: placeholder -> input.
        view: gives the values that a node reads, in place of the true ones.
        after: sees a node and its result, and returns what takes its place.

    Returns:
        The outputs, flattened.
    """
    values: Values = dict(feeds) | dict(traced.constants)
    values |= {name: state[target] for name, target in traced.state.items()}
    done = last_readers(traced)
    with torch.no_grad():
        for node in traced.operations:
            result = evaluate(node, values if view is None else view(node, values))
            values[node.name] = result if after is None else after(node, result)
            for name in done[node.name]:
                del values[name]
    return [values[node.name] for node in traced.outputs]
