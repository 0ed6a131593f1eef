"""From a captured network to ONNX IR with our names: what `onnx`, `openvino` and `tensorrt` are written from.

One lowering for three targets, so that a value has the same name in all of them and the gate can follow
a divergence from the shipped bytes back to the module that made it.
"""

import ast
import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from sdk_export.captured import Captured, Source
from sdk_export.decomposing import decomposed
from sdk_export.onnx_precision import lower_precision
from sdk_export.passes.exact_masks import exact_masks
from sdk_runtimes.errors import LoweringError, SdkError

MODULE_KEY = "module"
"""Node metadata: the path of the module that the node comes from."""

OPSET = 20  # the newest that ONNX Runtime 1.24, OpenVINO 2026.1 and TensorRT 10 all read

_SCOPES = "pkg.torch.onnx.name_scopes"
_NODE = re.compile(r"node(?: named)?[ `'%]+(\w+)")
_UNBACKED = re.compile(r"\bu\d+\b")  # torch's symbol for a size that depends on the data
_OP = re.compile(r"aten[.:]+\w+(?:\.\w+)?|<OpOverload\(op='([^']+)'")


def build_model(
    captured: Source, precision: str, passes: Sequence[Callable[[ir.Graph], None]] = ()
) -> ir.Model:
    """Lowers to ONNX IR; weights still point into the torch model.

    Args:
        captured: the network.
        precision: "fp32", "fp16" or "bf16"; inputs and outputs keep their own dtypes.
        passes: rewrites that one target needs, run while inner shapes are still known.

    Raises:
        LoweringError: an op that ONNX cannot express; names the op, module path and source line.
    """
    if isinstance(captured, Captured):
        model = _cloned(_translated(captured.exported))
        _keep_only_module_paths(model)
    else:
        model = ir.load(captured.file)
    _name_borders(model.graph, captured)
    for rewrite in (exact_masks, *passes):
        rewrite(model.graph)
    if precision != "fp32":
        lower_precision(model, precision, captured.keep_fp32)
    _forget_inner_shapes(model.graph)
    model.graph.name = captured.name
    model.producer_name, model.producer_version = "edge-sdk", None
    model.doc_string = model.graph.doc_string = None
    return model


def _cloned(model: ir.Model) -> ir.Model:
    """A model to write into. `ir.Model.clone` shares the type objects, and a dtype is set inside them."""
    clone = model.clone()
    for value in _values(clone.graph):
        value.type = copy.copy(value.type)
    return clone


@lru_cache(maxsize=1)
def _translated(exported: ExportedProgram) -> ir.Model:
    """What torch.onnx makes of a program: seconds of work, and the same for every target and precision."""
    from torch.onnx import OnnxExporterError

    try:
        with _quiet():
            program = torch.onnx.export(
                exported, dynamo=True, verbose=False, optimize=True, opset_version=OPSET
            )
    except OnnxExporterError as error:
        raise lowering_error("onnx", exported, error) from error
    assert program is not None
    return program.model


def forget_translation() -> None:
    """Lets go of the last translated program, whose weights it points into."""
    _translated.cache_clear()


_TALKERS = ("torch.onnx", "onnxscript", "onnx_ir")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the exporter logs of its own steps, and that torchvision is absent (it must be)."""
    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def lowering_error(target: str, exported: ExportedProgram, error: BaseException) -> SdkError:
    """An error that names the op, the module path and the source line of what could not be lowered."""
    messages = _chain(error)
    op = next((match.group(1) or match.group(0) for text in messages if (match := _OP.search(text))), "")
    node = _named_node(exported, messages, op)
    where = [f"op {op or (node.target if node else 'unknown')}"]
    if node is not None:
        stack = node.meta.get("nn_module_stack") or {}
        paths = [path for path, _ in stack.values() if path]
        where.append(f"module {paths[-1] if paths else '(the model itself)'}")
        frames = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
        where += [f"at {' '.join(frames[-2:])}"] if frames else []
    return LoweringError(
        f"{target} cannot express {', '.join(where)}",
        why=messages[-1].splitlines()[0] if messages[-1] else type(error).__name__,
        fix="rewrite this line with ops that the target has, or export for another target",
    )


def _named_node(exported: ExportedProgram, messages: Sequence[str], op: str) -> Node | None:
    """The traced node that a translation failed on: by its name, its op, or the size that it makes.

    torch.onnx decomposes before it translates, so the decomposed graph is asked, then the traced one.
    """
    names = [name for text in messages for name in _NODE.findall(text)]
    about_sizes = any(_UNBACKED.search(text) for text in messages)  # numbered anew by every trace
    base = op.partition(".")[2].partition(".")[0].strip("_") or op
    for program in (decomposed(exported), exported):
        nodes: list[Node] = [node for node in program.graph.nodes if node.op == "call_function"]
        named = [node for node in nodes if node.name in names]
        alike = [node for node in nodes if base and base in str(node.target)]
        sized = [node for node in nodes if about_sizes and _UNBACKED.search(str(node.meta.get("val")))]
        if named or alike or sized:
            return (named or alike or sized)[0]
    return None


def _chain(error: BaseException) -> list[str]:
    messages = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(str(cause).strip())
        cause = cause.__cause__
    return messages


def _keep_only_module_paths(model: ir.Model) -> None:
    """Node metadata shrinks to the module path: torch's holds source lines and folders of this machine."""
    for node in model.graph.all_nodes():
        path = _module_path(node.metadata_props)
        node.metadata_props.clear()
        node.doc_string = None
        if path:
            node.metadata_props[MODULE_KEY] = path
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in _values(model.graph):
        value.metadata_props.clear()


def _module_path(metadata: Mapping[str, str]) -> str:
    """The innermost module in torch's scopes, which end with the traced op's own name."""
    scopes = metadata.get(_SCOPES)
    if not scopes:
        return ""
    return str(ast.literal_eval(scopes)[:-1][-1:] or [""])[2:-2]


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph.all_nodes():
        yield from node.outputs


def _name_borders(graph: ir.Graph, captured: Source) -> None:
    """Inputs and outputs get the names and the symbolic shapes of the specs.

    An output that is called like an input gets ".out" in the file, where names are unique; sessions address
    outputs by position.
    """
    _own_outputs(graph)
    border = [*graph.inputs, *graph.outputs]
    specs = [*captured.inputs, *captured.outputs]
    assert len(border) == len(specs), f"{len(border)} values at the border, {len(specs)} specs"
    input_names = {spec.name for spec in captured.inputs}
    names = [spec.name for spec in captured.inputs]
    names += [f"{spec.name}.out" if spec.name in input_names else spec.name for spec in captured.outputs]
    for value in list(_values(graph)):
        if value.name in names and not any(value is other for other in border):
            value.name = f"{value.name}.inner"
    for i, value in enumerate(border):  # two steps, because an old name may be another's new one
        value.name = f"border.{i}"
    for value, name, spec in zip(border, names, specs, strict=True):
        value.name = name
        value.shape = ir.Shape(list(spec.shape))


def _own_outputs(graph: ir.Graph) -> None:
    """Every output becomes a value of its own: not an input, not an initializer, not another output."""
    seen: set[int] = set()
    for i, value in enumerate(list(graph.outputs)):
        if value.producer() is None or id(value) in seen:
            node = ir.node("Identity", [value])
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            graph.append(node)
            graph.outputs[i] = node.outputs[0]
        seen.add(id(graph.outputs[i]))


def _forget_inner_shapes(graph: ir.Graph) -> None:
    """Engines infer inner shapes; torch's carry its own symbol names, which would contradict ours."""
    border = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for node in graph.all_nodes():
        for value in node.outputs:
            if id(value) not in border:
                value.shape = None
                value.type = None


def last_values(graph: ir.Graph) -> dict[str, str]:
    """Module path -> name of the last value that comes from that module or one inside it."""
    values: dict[str, str] = {}
    for node in graph:
        path = node.metadata_props.get(MODULE_KEY, "")
        while path:
            values[path] = str(node.outputs[0].name)
            path = path.rpartition(".")[0]
    return values
