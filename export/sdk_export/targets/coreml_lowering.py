"""Brings a traced graph into a form that coremltools converts, and names the operation where it cannot."""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from sdk_export.targets.coreml_fixes import FIXES, REFUSED
from sdk_runtimes.errors import LoweringError, SdkError

aten = torch.ops.aten

_VIEWS = frozenset({aten.view.default, aten.reshape.default, aten._unsafe_view.default})
_COPIES = frozenset({aten.clone.default, aten.contiguous.default})
_NOOPS = _COPIES | {
    aten.alias.default,
    aten.detach.default,
    aten.dropout.default,
    aten.lift_fresh_copy.default,
}

_NARROW = frozenset({torch.uint8, torch.int8, torch.int16, torch.uint16})

# A decomposition may give operations that need decomposing too; chains are short.
_ROUNDS = 4


def lowered(exported: ExportedProgram) -> ExportedProgram:
    """The graph with our fixes in it and no operation that coremltools does not know.

    Operations it does not know are decomposed where torch knows how.

    Raises:
        LoweringError: operations that remain unknown; names the first with module path and source line.
    """
    _refuse_silent(exported)
    table = dict(FIXES)
    for _ in range(_ROUNDS):
        exported = _decomposed(exported, table)
        unknown = _unknown(exported)
        known_to_torch = torch._decomp.core_aten_decompositions()  # the table is in no public module
        wanted = {
            node.target: known_to_torch[node.target] for node in unknown if node.target in known_to_torch
        }
        if not wanted:
            break
        table = {**table, **wanted}
    if unknown:
        _refuse(unknown)
    merge_views(exported.graph)
    _drop_constant_outputs(exported)
    _separate_outputs(exported)
    _plain_inputs(exported.graph)
    return exported


def merge_views(graph: Graph) -> None:
    """A reshape of a reshape is one reshape; drops the inner one where nothing else uses it."""
    for node in graph.nodes:
        if node.target not in _VIEWS:
            continue
        source = node.args[0]
        while source.target in _VIEWS or source.target in _COPIES:
            source = source.args[0]
        node.args = (source, *node.args[1:])
    graph.eliminate_dead_code()


def _drop_constant_outputs(exported: ExportedProgram) -> None:
    """Outputs that are None or a plain number are no tensors; coremltools looks for them among its own."""
    output = exported.graph.output_node()
    kept = [node for node in output.args[0] if isinstance(node, Node)]
    output.args = (tuple(kept),)
    names = {node.name for node in kept}
    specs = exported.graph_signature.output_specs
    specs[:] = [spec for spec in specs if getattr(spec.arg, "name", "") in names]


def _separate_outputs(exported: ExportedProgram) -> None:
    """Gives every output an operation of its own.

    coremltools renames outputs in place, so that an input, or one result given twice, would need two names.
    `type_as` is what it translates into MIL's `identity`; it drops `clone`.
    """
    graph = exported.graph
    signature = exported.graph_signature
    output = graph.output_node()
    results, seen = list(output.args[0]), set()
    for i, node in enumerate(results):
        if not isinstance(node, Node):
            continue
        source = _without_noops(node)
        if source.op == "placeholder" or source in seen:
            with graph.inserting_before(output):
                results[i] = graph.call_function(aten.type_as.default, (node, node))
            results[i].meta = dict(node.meta)
            signature.output_specs[i].arg.name = results[i].name
        seen.add(source)
    output.args = (tuple(results),)


def _plain_inputs(graph: Graph) -> None:
    """Inputs as dense row-major tensors, narrow integers as int32.

    A feed has no strides, and coremltools refuses channels_last samples. It does not know uint8 as an
    input, and Core ML carries every integer as int32 anyway.
    """
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            plain = value.contiguous()
            node.meta["val"] = plain.to(torch.int32) if plain.dtype in _NARROW else plain


def _without_noops(node: Node) -> Node:
    """What a node's value is, past the operations that coremltools drops."""
    while node.target in _NOOPS:
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    return node


def _refuse_silent(exported: ExportedProgram) -> None:
    """Refuses what coremltools would get wrong without a word."""
    for node in exported.graph.nodes:
        if node.target in REFUSED:
            raise LoweringError(
                f"Core ML cannot express {where(node)}",
                why=REFUSED[node.target],
                fix="write that part of the model with other operations, or export to another target",
            )


def _decomposed(exported: ExportedProgram, table: dict[Any, Any]) -> ExportedProgram:
    """`run_decompositions` without torch 2.13's warning about its own use of a name it renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
        decomposed: ExportedProgram = exported.run_decompositions(table)
    return decomposed


def _unknown(exported: ExportedProgram) -> list[Node]:
    """Operations without a converter."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    return [
        node
        for node in exported.graph.nodes
        if node.op == "call_function" and sanitize_op_kind(_kind(node)) not in _TORCH_OPS_REGISTRY
    ]


def _kind(node: Node) -> str:
    """What coremltools looks an operation up by."""
    target: Any = node.target
    return str(target.name()) if hasattr(target, "name") else str(getattr(target, "__name__", target))


def _refuse(nodes: list[Node]) -> None:
    listed = sorted({_kind(node) for node in nodes})
    raise LoweringError(
        f"Core ML cannot express {', '.join(listed)} ({len(nodes)} uses); the first is {where(nodes[0])}",
        why="coremltools does not know it, and neither torch nor we take it apart",
        fix="write that part of the model with other operations, or export to another target",
    )


def where(node: Node) -> str:
    """An operation in its author's terms: what it is, the module path, the source line."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    module = paths[-1].removeprefix("L['self'].") if paths else ""
    lines = [line.strip() for line in str(node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    source = " -> ".join(lines[-2:]) if lines else "source unknown"
    return f"{_kind(node)} in module {module or '(the model itself)'!r}, {source}"


@contextmanager
def naming_the_operation(exported: ExportedProgram) -> Iterator[None]:
    """Turns whatever coremltools raises into an error that names the operation it was at."""
    try:
        yield
    except (SdkError, OSError):
        raise
    except Exception as error:  # coremltools raises whatever Python does: ValueError, TypeError, KeyError, …
        node = _node_at(error, exported)
        traceback.clear_frames(error.__traceback__)  # they hold a temporary folder with the weights so far
        if "filesystem error" in str(error):  # libmodelpackage's own: the disk, not the network
            raise OSError(str(error)) from error
        raise LoweringError(
            f"Core ML cannot express {where(node)}" if node else f"Core ML conversion failed: {error}",
            why=f"coremltools says {type(error).__name__}: {error}",
            fix="write that part of the model with other operations, or export to another target",
        ) from error


def _node_at(error: Exception, exported: ExportedProgram) -> Node | None:
    """The graph node being converted when the error was raised, from coremltools' own frames."""
    nodes = {node.name: node for node in exported.graph.nodes}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "convert_single_node":
            return nodes.get(frame.f_locals["node"].name)
    return None
