"""Walks a graph as an engine would, with functions expanded, and refuses what would hurt the machine."""

from collections import ChainMap
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sdk_runtimes.errors import UnsafeBundleError
from sdk_runtimes.limits import Limits
from sdk_runtimes.onnx_growth import Unresolved, grown_shape, largest
from sdk_runtimes.onnx_model import Attribute, Function, FunctionKey, Graph, Model, Node
from sdk_runtimes.onnx_ops import OPS, STANDARD
from sdk_runtimes.onnx_values import (
    DYNAMIC,
    Value,
    attribute,
    compute,
    constant,
    filled_bits,
    from_content,
    from_tensor,
)

Scope = MutableMapping[str, Value]

# attribute -> the least and greatest it may be, each element; kernels have divided by such zeros
_RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "strides": (1, 1 << 16),
        "dilations": (1, 1 << 16),
        "kernel_shape": (1, 1 << 16),
        "pads": (-(1 << 20), 1 << 20),
        "output_padding": (0, 1 << 16),
        "output_shape": (0, 1 << 24),
        "group": (1, 1 << 24),
        "blocksize": (1, 1 << 12),
        "num_outputs": (1, 1 << 16),
        "hidden_size": (1, 1 << 24),
        "num_heads": (0, 1 << 16),
    }
)

_MAX_DIM = (1 << 63) - 1


@dataclass
class GraphCheck:
    """One walk.

    Attributes:
        functions: the model's own.
        allowed: operators beyond `OPS`, as "domain::op".
        limits: the caps.
        nodes: seen so far, expanded calls counted each time.
        grown_bytes: of tensors made from constants that are larger than these.
        calls: the functions being expanded.
    """

    functions: Mapping[FunctionKey, Function]
    allowed: Collection[str]
    limits: Limits
    nodes: int = 0
    grown_bytes: int = 0
    calls: list[FunctionKey] = field(default_factory=list)

    def graph(self, graph: Graph, outer: Scope) -> list[Value]:
        """Checks a graph or a body; gives what is known of its outputs."""
        scope: Scope = ChainMap({}, outer) if outer else {}
        for name, tensor in graph.inputs.items():
            scope[name] = DYNAMIC if tensor is None else from_tensor(tensor, constant=False)
        for name, tensor in graph.initializers.items():
            scope[name] = from_tensor(tensor, constant=True)
        self._nodes(graph.nodes, scope)
        return [scope.get(name, DYNAMIC) for name in graph.outputs]

    def _nodes(
        self, nodes: tuple[Node, ...], scope: Scope, given: Mapping[str, Attribute] | None = None
    ) -> None:
        self.nodes += sum(map(_weight, nodes))
        if self.nodes > self.limits.graph_nodes:
            raise UnsafeBundleError(
                f"the graph has more than {self.limits.graph_nodes} nodes, functions expanded"
            )
        for written in nodes:
            node = written if given is None else _resolved(written, given)
            args = [scope.get(name, DYNAMIC) if name else None for name in node.inputs]
            for name, value in zip(node.outputs, self._outputs(node, args, scope), strict=False):
                scope[name] = value

    def _outputs(self, node: Node, args: list[Value | None], scope: Scope) -> list[Value]:
        key = (node.domain, node.op, node.overload)
        if key in self.functions:
            return self._call(key, node, args)
        _check_known(node, self.allowed)
        _check_attributes(node)
        if graphs := node.graphs:
            found = [self.graph(graph, scope) for graph in graphs]
            # An engine that knows an If's condition replaces it by a branch; loops it leaves alone.
            folds = node.op == "If" and all(arg is not None and arg.constant for arg in args)
            return [Value(folds and value.constant) for value in found[0]]
        if node.domain == STANDARD:
            return self._plain(node, args)
        return [Value(all(arg.constant for arg in args if arg is not None))] * len(node.outputs)

    def _call(self, key: FunctionKey, node: Node, args: list[Value | None]) -> list[Value]:
        if key in self.calls or len(self.calls) >= self.limits.graph_depth:
            chain = " -> ".join(name for _, name, _ in [*self.calls, key])
            raise UnsafeBundleError(
                f"functions call each other: {chain[:400]}", why="recursion, or nested too deep"
            )
        function = self.functions[key]
        padded = [*args, *[None] * len(function.inputs)]
        scope = {
            name: value for name, value in zip(function.inputs, padded, strict=False) if value is not None
        }
        self.calls.append(key)
        self._nodes(function.nodes, scope, {**function.defaults, **node.attributes})
        self.calls.pop()
        return [scope.get(name, DYNAMIC) for name in function.outputs]

    def _plain(self, node: Node, args: list[Value | None]) -> list[Value]:
        if node.op == "Constant":
            return [constant(node)]
        is_constant = all(arg.constant for arg in args if arg is not None)
        content = compute(node, args)
        try:
            shape = grown_shape(node, args)
        except Unresolved:
            raise UnsafeBundleError(
                f"{node.op} {node.outputs[:1]} takes its size from constants in a way that is not followed",
                why="an engine may compute it at load, and it may be of any size",
                fix="fold the constants of the graph first (onnxsim, or ONNX Runtime's offline optimization)",
            ) from None
        if content is not None:
            return [from_content(item) for item in content]
        source = largest(args)
        makes = node.op in ("ConstantOfShape", "RandomNormal", "RandomUniform") or source is None
        value = Value(is_constant, shape, filled_bits(node) if makes else source.bits if source else 32)
        self._check_growth(node, value, 0 if source is None else source.size_bytes)
        return [value, *[Value(is_constant)] * (len(node.outputs) - 1)]

    def _check_growth(self, node: Node, value: Value, before: int) -> None:
        size = value.size_bytes
        if value.constant and size > before:
            self.grown_bytes += size
        sane = max(value.shape or (0,)) <= _MAX_DIM  # else beside a 0 any size would pass
        if sane and size <= self.limits.tensor_bytes and self.grown_bytes <= self.limits.grown_bytes:
            return
        raise UnsafeBundleError(
            f"{node.op} {node.outputs[:1]} makes {size} bytes, shape {list(value.shape or ())[:16]}",
            why=f"at most {self.limits.tensor_bytes} bytes are allowed, and {self.limits.grown_bytes} in all"
            " from constants",
        )


def check_model(model: Model, *, allowed: Collection[str], limits: Limits) -> None:
    """Checks operators, attributes, functions and the sizes that a graph asks for.

    Raises:
        UnsafeBundleError: names the node.
    """
    for domain, name, _ in model.functions:
        if domain in OPS:
            raise UnsafeBundleError(f"function {name[:80]!r} redefines the domain {domain or 'ai.onnx'!r}")
    _check_expansion(model, limits)
    check = GraphCheck(model.functions, frozenset(allowed), limits)
    check.graph(model.graph, {})
    for key, function in model.functions.items():
        # Also the functions that nothing calls: an engine may look at them.
        check.calls = [key]
        check._nodes(function.nodes, {}, function.defaults)


def _weight(node: Node) -> int:
    """What a node counts for: one, and more where it is so wide that looking at it takes time."""
    return 1 + (len(node.inputs) + len(node.outputs) + len(node.attributes)) // 64


def _check_expansion(model: Model, limits: Limits) -> None:
    """Counts nodes with calls expanded, without expanding any: calls that double are 2^n nodes."""
    sizes: dict[FunctionKey, int] = {}
    for key in model.functions:
        _expanded(key, model.functions, sizes, (), limits)


def _expanded(
    key: FunctionKey,
    functions: Mapping[FunctionKey, Function],
    sizes: dict[FunctionKey, int],
    calls: tuple[FunctionKey, ...],
    limits: Limits,
) -> int:
    if key in calls or len(calls) > limits.graph_depth:
        chain = " -> ".join(name for _, name, _ in [*calls, key])
        raise UnsafeBundleError(
            f"functions call each other: {chain[:400]}", why="recursion, or nested too deep"
        )
    if key not in sizes:
        total, pending = 0, list(functions[key].nodes)
        while pending:
            node = pending.pop()
            total += _weight(node)
            pending.extend(inner for graph in node.graphs for inner in graph.nodes)
            callee = (node.domain, node.op, node.overload)
            if callee in functions:
                total += _expanded(callee, functions, sizes, (*calls, key), limits)
        if total > limits.graph_nodes:
            raise UnsafeBundleError(
                f"function {key[1][:80]!r} expands to more than {limits.graph_nodes} nodes"
            )
        sizes[key] = total
    return sizes[key]


def _resolved(node: Node, outer: Mapping[str, Attribute]) -> Node:
    """The node with references to its function's attributes replaced by what they mean."""
    return node._replace(
        attributes={name: outer.get(item.reference, item) for name, item in node.attributes.items()}
    )


def _check_known(node: Node, allowed: Collection[str]) -> None:
    if node.op in OPS.get(node.domain, ()) or f"{node.domain}::{node.op}" in allowed:
        return
    raise UnsafeBundleError(
        f"operator {(node.domain or 'ai.onnx')[:80]}::{node.op[:80]} is not one that is allowed",
        why="custom operators load native code, and others hold compiled blobs",
        fix=f"allow it by name: allowed_ops={{{f'{node.domain}::{node.op}'[:160]!r}}}",
    )


def _check_attributes(node: Node) -> None:
    for name, given in node.attributes.items():
        if name not in _RANGES or given.kind not in ("i", "ints") or given.value is None:
            continue
        least, greatest = _RANGES[name]
        values = attribute(node, name, ())
        for value in values if isinstance(values, tuple) else (values,):
            if not least <= value <= greatest:
                raise UnsafeBundleError(
                    f"{node.op} {node.outputs[:1]} has {name}={value}",
                    why=f"allowed are {least} to {greatest}",
                )
