"""What one run of a traced network costs: floating-point operations and peak live activations.

Counted on the core ATen graph at the sample sizes. FLOPs come from torch's own formulas for matrix products,
convolutions and attention (a multiply-add counts two); element-wise work is not counted, being bound by
bandwidth. Activations are what must be alive at once, each tensor from its making to its last use.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node
from torch.utils.flop_counter import flop_registry

from sdk_export.captured import Captured
from sdk_export.decomposing import decomposed

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_VIEWS = (
    "view",
    "expand",
    "permute",
    "slice",
    "select",
    "squeeze",
    "unsqueeze",
    "alias",
    "getitem",
    "t",
    "detach",
)


@dataclass(frozen=True)
class Cost:
    """Of one run at the sample sizes.

    Attributes:
        flops: floating-point operations.
        activations_bytes: peak of live inputs, outputs and intermediate tensors.
    """

    flops: int
    activations_bytes: int


def cost_of(captured: Captured) -> Cost:
    """Counts operations and live bytes of a captured network."""
    program = decomposed(captured.exported)
    sizes = _symbol_sizes(program, captured)
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    return Cost(sum(_flops(node, sizes) for node in nodes), _peak_bytes(program, sizes))


def _symbol_sizes(program: "ExportedProgram", captured: Captured) -> dict[Any, int]:
    """Symbols of the trace -> their sizes in the samples."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    fakes = [placeholders[n].meta["val"] for n in program.graph_signature.user_inputs if n in placeholders]
    tensors = [fake for fake in fakes if isinstance(fake, torch.Tensor)]
    sizes: dict[Any, int] = {}
    for fake, spec in zip(tensors, captured.inputs, strict=True):
        dims: list[Any] = list(fake.shape)  # ints and SymInts, which torch types as ints
        for traced, real in zip(dims, captured.samples[spec.name].shape, strict=True):
            if isinstance(traced, torch.SymInt):
                sizes |= _solved(traced.node.expr, real)
    return sizes


def _solved(expression: Any, size: int) -> dict[Any, int]:
    """The one symbol of an axis that is a multiple of it ("4*s30"), at this size of the axis."""
    import sympy  # type: ignore[import-untyped]  # ships no types; torch brings it

    (symbol, *more) = expression.free_symbols
    return {} if more else {symbol: int(sympy.solve(expression - size, symbol)[0])}


def _shape(value: Any, sizes: dict[Any, int]) -> torch.Size:
    sizes_in_order: list[Any] = list(value.shape)
    return torch.Size(s if isinstance(s, int) else _resolved(s, sizes) for s in sizes_in_order)


def _resolved(size: Any, sizes: dict[Any, int]) -> int:
    """A traced size in numbers; 1 where it depends on the data (the length of a nonzero)."""
    expression = size.node.expr.subs(sizes)
    return int(expression) if expression.is_number else 1


def _flops(node: Node, sizes: dict[Any, int]) -> int:
    packet = getattr(node.target, "overloadpacket", None)
    if packet not in flop_registry:
        return 0

    def concrete(value: Any) -> Any:
        if isinstance(value, Node):
            value = value.meta.get("val")
        if isinstance(value, torch.SymInt):
            return _resolved(value, sizes)
        return torch.empty(_shape(value, sizes), device="meta") if isinstance(value, torch.Tensor) else value

    args = torch.fx.map_arg(node.args, concrete)
    kwargs = torch.fx.map_arg(node.kwargs, concrete)
    out = torch.utils._pytree.tree_map(concrete, node.meta["val"])
    return int(flop_registry[packet](*args, **kwargs, out_val=out))


def _peak_bytes(program: "ExportedProgram", sizes: dict[Any, int]) -> int:
    nodes = list(program.graph.nodes)
    weights = set(program.graph_signature.inputs_to_parameters) | set(
        program.graph_signature.inputs_to_buffers
    )
    weights |= set(program.graph_signature.inputs_to_lifted_tensor_constants)
    owner = {node: _owner(node) for node in nodes}
    last_use = {owner[used]: i for i, node in enumerate(nodes) for used in node.all_input_nodes}
    live, peak = 0, 0
    dying: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        if node.name not in weights and owner[node] is node:
            size = _bytes(node, sizes)
            live += size
            dying.setdefault(last_use.get(node, i), []).append(size)
        peak = max(peak, live)
        live -= sum(dying.pop(i, []))
    return peak


def _owner(node: Node) -> Node:
    """Whose storage a node looks at: a view's own input, else itself."""
    name = getattr(getattr(node.target, "overloadpacket", node.target), "__name__", "")
    while node.op == "call_function" and name.removesuffix("_copy") in _VIEWS and node.all_input_nodes:
        node = node.all_input_nodes[0]
        name = getattr(getattr(node.target, "overloadpacket", node.target), "__name__", "")
    return node


def _bytes(node: Node, sizes: dict[Any, int]) -> int:
    if node.op == "output":
        return 0
    values = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    return sum(_shape(v, sizes).numel() * v.element_size() for v in values if isinstance(v, torch.Tensor))
