"""Whether TensorRT can build an engine from an ONNX graph, asked where there is no TensorRT.

An engine is built on the user's machine, at first load: what its parser would refuse there must be found
at export, with the module that it comes from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from sdk_export.tensorrt_ops import ALL_INPUTS, INSTEAD, MAX_OPSET, OPS, Op
from sdk_export.tensorrt_rules import MAX_RANK
from sdk_runtimes.errors import LoweringError, UnknownChoiceError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

VERSIONS = tuple(MAX_OPSET)

_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_MODULE_KEY = "module"  # where our ONNX lowering puts the module path

# dtype -> why it cannot be in the graph at all
_NO_SUCH_TYPE: Mapping[str, str] = MappingProxyType(
    {
        "DOUBLE": "TensorRT silently computes float64 in float32",
        **dict.fromkeys(
            ("INT16", "UINT16", "UINT32", "UINT64", "COMPLEX64", "COMPLEX128", "STRING"),
            "TensorRT has no such type",
        ),
    }
)

_SHOWN = 8  # issues in one error message


@dataclass(frozen=True)
class Issue:
    """One thing that TensorRT would refuse.

    Attributes:
        op: op type, or "" for what is not a node.
        node: the node's name, or the value's.
        module: path of the torch module that it comes from; empty if unknown.
        why: what TensorRT asks.
        fix: what to do.
        is_dtype: whether another floating-point precision of this node would do.
    """

    op: str
    node: str
    module: str
    why: str
    fix: str
    is_dtype: bool = False

    def __str__(self) -> str:
        where = f" in module {self.module!r}" if self.module else ""
        return f"{self.op} {self.node!r}{where}: {self.why}; {self.fix}"


def check(model: "ir.Model | onnx.ModelProto", *, version: int = 10) -> tuple[Issue, ...]:
    """All that TensorRT's ONNX parser would refuse of a graph, its subgraphs included.

    Args:
        model: dtypes and shapes need not be annotated, they are inferred on a copy.
        version: TensorRT's major version.

    Raises:
        UnknownChoiceError: a version that is not in `VERSIONS`.
    """
    if version not in MAX_OPSET:
        raise UnknownChoiceError("TensorRT version", version, map(str, VERSIONS))
    annotated = _annotated(model)
    issues = [*_opset(annotated, version), *_borders(annotated.graph)]
    for node in annotated.graph.all_nodes():
        issues += _node_issues(node, version, annotated)
    return tuple(issues)


def require_support(model: "ir.Model | onnx.ModelProto", name: str, *, version: int = 10) -> None:
    """Refuses a graph that TensorRT would refuse.

    Raises:
        LoweringError: names every op, its module path, why, and what to do.
    """
    issues = check(model, version=version)
    if issues:
        raise refusal(name, issues, version)


def refusal(name: str, issues: Sequence[Issue], version: int) -> LoweringError:
    """The error that lists issues."""
    listed = [f"\n    {issue}" for issue in issues[:_SHOWN]]
    rest = f"\n    and {len(issues) - _SHOWN} more" if len(issues) > _SHOWN else ""
    plural = "node" if len(issues) == 1 else "nodes"
    return LoweringError(
        f"TensorRT {version} cannot take {len(issues)} {plural} of {name!r}",
        why="".join(listed) + rest,
        fix=f"{issues[0].fix}; or export for another target",
    )


def _annotated(model: "ir.Model | onnx.ModelProto") -> "ir.Model":
    """A copy with inferred dtypes and shapes; weights are shared, not copied."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    copy = model.clone() if isinstance(model, ir.Model) else ir.from_proto(model)
    ShapeInferencePass(check_type=False, strict_mode=False)(copy)
    return copy


def _opset(model: "ir.Model", version: int) -> Iterator[Issue]:
    opset = model.graph.opset_imports.get("", 0)
    if opset > MAX_OPSET[version]:
        yield Issue(
            "",
            f"opset {opset}",
            "",
            f"TensorRT {version} reads opsets up to {MAX_OPSET[version]}",
            f"export at opset {MAX_OPSET[version]}",
        )


def _borders(graph: "ir.Graph") -> Iterator[Issue]:
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            dtype = value.dtype.name if value.dtype is not None else ""
            if dtype in _NO_SUCH_TYPE:
                yield Issue(
                    kind, str(value.name), "", f"it is {dtype}: {_NO_SUCH_TYPE[dtype]}", f"cast the {kind}"
                )


def _node_issues(node: "ir.Node", version: int, model: "ir.Model") -> Iterator[Issue]:
    if node.domain not in _STANDARD_DOMAINS:
        is_function = node.op_identifier() in model.functions
        yield _issue(
            node,
            f"it is a function of domain {node.domain!r}"
            if is_function
            else f"domain {node.domain!r} needs a plugin, and bundles carry none",
            "inline it (onnx.inliner)" if is_function else "write it with standard ONNX ops",
        )
        return
    op = OPS.get(node.op_type)
    if op is None or op.since > version:
        yield _issue(
            node,
            f"TensorRT {version} does not have this op",
            INSTEAD.get(node.op_type, "write it with ops that TensorRT has"),
        )
        return
    yield from _dtype_issues(node, op, version)
    yield from _rank_issues(node)
    found = op.rule(node, version) if op.rule is not None else None
    if found is not None:
        yield _issue(node, *found)


def _dtype_issues(node: "ir.Node", op: Op, version: int) -> Iterator[Issue]:
    allowed = op.types | (op.from_11 if version >= 11 else frozenset())
    indices = range(len(node.inputs)) if op.data is ALL_INPUTS else op.data
    values = [node.inputs[i] for i in indices if i < len(node.inputs)]
    given = {value.dtype.name for value in values if value is not None and value.dtype is not None}
    for dtype in sorted(given - allowed):
        wanted = ", ".join(sorted(allowed))
        yield _issue(
            node,
            _NO_SUCH_TYPE.get(dtype, f"it computes in {dtype}, TensorRT {version} in {wanted}"),
            f"cast to {sorted(allowed)[0]} around it",
            is_dtype=dtype in ("FLOAT16", "BFLOAT16") and "FLOAT" in allowed,
        )
    yield from _new_values(node)


def _new_values(node: "ir.Node") -> Iterator[Issue]:
    """Dtypes that a node makes: bytes only at the border, and nothing that TensorRT has not."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return
    for value in node.outputs:
        dtype = value.dtype.name if value.dtype is not None else ""
        if dtype in _NO_SUCH_TYPE:
            yield _issue(node, f"it gives {dtype}: {_NO_SUCH_TYPE[dtype]}", "use float32 or int64")
        if dtype == "UINT8" and not value.is_graph_output():
            yield _issue(node, "TensorRT has uint8 at inputs and outputs only", "compute in int32")


def _rank_issues(node: "ir.Node") -> Iterator[Issue]:
    for value in node.outputs:
        if value.shape is not None and len(value.shape) > MAX_RANK:
            yield _issue(
                node,
                f"it gives {len(value.shape)} axes, TensorRT has at most {MAX_RANK}",
                "merge neighbouring axes before",
            )


def _issue(node: "ir.Node", why: str, fix: str, *, is_dtype: bool = False) -> Issue:
    module = node.metadata_props.get(_MODULE_KEY, "")
    return Issue(node.op_type, str(node.name or node.outputs[0].name), module, why, fix, is_dtype)
