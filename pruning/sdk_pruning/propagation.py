"""Walks a traced graph once and finds out what is tied to what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from sdk_pruning.atoms import Atoms, Ties
from sdk_pruning.axis_labels import Axis, Labels, bare
from sdk_pruning.calls import Call
from sdk_pruning.execution import operation_name, run
from sdk_pruning.tracing import Traced

Rule = Callable[["Operation"], Any]
"""Labels of the results from those of the arguments: `Labels`, a list of them, or None for no tensor."""


@dataclass(frozen=True)
class Use:
    """A place where features are summed over: masking them here is the same as removing them.

    Attributes:
        node: that sums.
        kind: "linear", "conv", "transposed_conv" or "product" (of two activations).
        features: the node whose result is read.
        axis: of the features, that is summed over.
        columns: that axis.
        weight: name of the parameter, None for a product or a weight that the code computes.
        weight_axis: of the parameter that faces the features.
        bias: name of its bias; None where there is none or the code computes it.
        module: path of the module that it stands in.
    """

    node: str
    kind: str
    features: str
    axis: int
    columns: Axis
    weight: str | None = None
    weight_axis: int = 1
    bias: str | None = None
    module: str = ""


@dataclass(frozen=True)
class Unknown:
    """An operation without a rule, met by something that could be pruned."""

    operation: str
    module: str
    atoms: tuple[int, ...]


@dataclass(frozen=True)
class Counted:
    """A number that a module without weights keeps of its channels or groups of them.

    Attributes:
        module: path of the module.
        attribute: its name.
        atoms: one for each that it counts.
    """

    module: str
    attribute: str
    atoms: Atoms


@dataclass
class Findings:
    """What a walk gathers."""

    ties: Ties = field(default_factory=Ties)
    uses: list[Use] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)
    grouped: dict[str, int] = field(default_factory=dict)  # weight of a grouped layer -> its groups
    counted: list[Counted] = field(default_factory=list)
    tables: set[str] = field(default_factory=set)  # weights of embeddings
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)  # tensor -> all its names
    calls: dict[str, list[str]] = field(default_factory=dict)  # parameter -> nodes that read it
    factored: dict[tuple[bytes, tuple[int, ...]], list[Atoms]] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """One node with labelled arguments.

    Attributes:
        node: of the graph.
        name: of the operation.
        arguments: by the names of the operation's schema; tensors as `Labels`, sizes as numbers.
        result: what the node computed at the sample inputs: shapes are read off it.
        module: path of the module it belongs to.
        findings: what the walk gathers.
    """

    node: fx.Node
    name: str
    arguments: Mapping[str, Any]
    result: Any
    module: str
    findings: Findings

    @property
    def ties(self) -> Ties:
        """What is tied to what."""
        return self.findings.ties

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.name} in {self.module or 'the model itself'}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the one result."""
        return tuple(self.result.shape)

    def labels(self) -> list[Labels]:
        """Every tensor argument, lists flattened."""
        found: list[Labels] = []
        for value in self.arguments.values():
            found += [item for item in (value if isinstance(value, list | tuple) else (value,)) if _is(item)]
        return found

    def source_node(self, name: str) -> str:
        """The node behind an argument."""
        given = bound_arguments(self.node)[name]
        assert isinstance(given, fx.Node), "the rule asks for a tensor"
        return given.name


def _is(value: object) -> bool:
    return isinstance(value, Labels)


def propagate(traced: Traced, model: nn.Module, call: Call, rules: Mapping[str, Rule]) -> Findings:
    """Runs the graph once on the sample inputs, and passes ties along.

    Args:
        traced: the graph of the model.
        model: gives the weights.
        call: sample inputs.
        rules: operation -> rule.
    """
    findings = Findings()
    state = state_of(model)
    for name, target in traced.state.items():
        findings.labels[name] = _parameter(findings.ties, target, state[target])
        same = [name for name, tensor in state.items() if tensor is state[target]]
        findings.aliases[target] = tuple(same)
    concrete: dict[str, Any] = {}

    def after(node: fx.Node, result: Any) -> Any:
        findings.labels[node.name] = _passed(node, result, findings, concrete, rules)
        if not isinstance(result, Tensor):
            concrete[node.name] = result
        return result

    for name, value in {**traced.feeds(call), **traced.constants}.items():
        findings.labels[name] = bare(value.shape) if isinstance(value, Tensor) else value
    run(traced, state, traced.feeds(call), after=after)
    for node in traced.outputs:
        label = findings.labels[node.name]
        if isinstance(label, Labels):
            findings.ties.freeze(label.atoms, "the model returns it")
    return findings


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a tensor with several names stands under each."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _parameter(ties: Ties, name: str, tensor: Tensor) -> Labels:
    axes = tuple(
        (ties.slices_of(name, axis, size),) if size > 1 else () for axis, size in enumerate(tensor.shape)
    )
    return Labels(tuple(tensor.shape), axes, name)


def _passed(
    node: fx.Node, result: Any, findings: Findings, concrete: Mapping[str, Any], rules: Mapping[str, Rule]
) -> Any:
    def known(arg: fx.Node) -> Any:
        return (
            concrete[arg.name]
            if arg.name in concrete and not _tensors(concrete[arg.name])
            else (findings.labels[arg.name])
        )

    arguments = {name: fx.map_arg(value, known) for name, value in bound_arguments(node).items()}
    operation = Operation(node, operation_name(node), arguments, result, module_of(node), findings)
    for label in operation.labels():
        if label.source is not None:
            findings.calls.setdefault(label.source, []).append(node.name)
    if not _tensors(result):
        return result
    rule = rules.get(operation.name)
    if rule is not None:
        return rule(operation)
    atoms = tuple(atom for label in operation.labels() for atom in label.atoms)
    if atoms:
        findings.unknown.append(Unknown(operation.name, operation.module, atoms))
    return _bare(result)


def _tensors(result: Any) -> bool:
    if isinstance(result, list | tuple):
        return any(isinstance(item, Tensor) for item in result)
    return isinstance(result, Tensor)


def _bare(result: Any) -> Any:
    if isinstance(result, Tensor):
        return bare(result.shape)
    return [_bare(item) for item in result] if isinstance(result, list | tuple) else result


def bound_arguments(node: fx.Node) -> dict[str, Any]:
    """A node's arguments by the names of its schema, defaults included."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return {str(index): value for index, value in enumerate(node.args)} | dict(node.kwargs)
    names = [argument.name for argument in target._schema.arguments]
    bound = {argument.name: argument.default_value for argument in target._schema.arguments}
    return bound | dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def module_of(node: fx.Node) -> str:
    """Path of the innermost module that the node came from."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(list(stack.values())), ("", ""))[0] if stack else ""
    return "" if path.startswith("_empty_nn_module") else path
