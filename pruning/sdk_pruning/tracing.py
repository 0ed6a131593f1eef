"""A model as a graph of ATen operations that runs at any batch size."""

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from sdk_pruning.calls import Call
from sdk_pruning.einsum import EinsumAsProducts
from sdk_runtimes.errors import TraceError


@dataclass(frozen=True)
class Traced:
    """The graph of one model.

    Attributes:
        graph: as torch.export gives it: high-level ATen, parameters as placeholders.
        state: placeholder -> name of its parameter or buffer in the model.
        constants: placeholder -> tensor that the code itself made.
        inputs: placeholders of the user's inputs, in the order of the flattened call.
        any_batch: whether it runs at other batch sizes than that of the sample inputs.
    """

    graph: fx.Graph
    state: Mapping[str, str]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    any_batch: bool

    def feeds(self, call: Call) -> dict[str, Any]:
        """Placeholder -> value for one call. Tensors are not copied."""
        leaves = pytree.tree_leaves((call.args, dict(call.kwargs)))
        return dict(zip(self.inputs, leaves, strict=True))

    @property
    def operations(self) -> list[fx.Node]:
        """What is computed, in order."""
        return [node for node in self.graph.nodes if node.op == "call_function"]

    @property
    def outputs(self) -> list[fx.Node]:
        """What is returned, flattened; leaves that no operation made are left out."""
        returned = next(node for node in self.graph.nodes if node.op == "output").args[0]
        return [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, fx.Node)]


def trace(model: nn.Module, call: Call) -> Traced:
    """Traces a model in evaluation mode, with a free batch where it allows one.

    Args:
        model: in evaluation mode.
        call: sample inputs.

    Raises:
        TraceError: torch.export cannot trace it.
    """
    doubled = call.doubled()
    if doubled is not None:
        try:
            return _traced(_export(model, doubled, batched=True), any_batch=True)
        except Exception:  # noqa: BLE001, S110 - torch.export raises dozens of kinds; a fixed batch is next
            pass
    try:
        return _traced(_export(model, call, batched=False), any_batch=False)
    except Exception as error:
        raise TraceError(
            f"torch.export could not trace {type(model).__name__}: {str(error).splitlines()[0][:300]}",
            why="groups of channels are found on the traced graph",
            fix="sdk.export(model, …) names the module and line that cannot be traced; mend that first",
        ) from error


def _export(model: nn.Module, call: Call, *, batched: bool) -> ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad(), EinsumAsProducts():
        warnings.simplefilter("ignore")  # torch.export's, about its own internals
        return torch.export.export(
            model,
            call.args,
            dict(call.kwargs),
            dynamic_shapes=_free_batch(model, call) if batched else None,
            strict=False,
        )


def _free_batch(model: nn.Module, call: Call) -> dict[str, Any]:
    """`dynamic_shapes` that leave the first axis of everything batched open."""
    size = call.batch_size

    def axes(leaf: Any) -> dict[int, Any] | None:
        batched = isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == size
        return {0: Dim.AUTO} if batched else None

    bound = inspect.signature(model.forward).bind(*call.args, **call.kwargs).arguments
    return {name: pytree.tree_map(axes, value) for name, value in bound.items()}


def _traced(program: ExportedProgram, *, any_batch: bool) -> Traced:
    state, constants, inputs = {}, {}, []
    for spec in program.graph_signature.input_specs:
        name = spec.arg.name
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(name)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            assert spec.target is not None, "torch.export names the tensors it lifts"
            state[name] = spec.target
        else:
            assert spec.target is not None, "torch.export names the tensors it lifts"
            constants[name] = program.constants[spec.target]
    return Traced(program.graph, state, constants, tuple(inputs), any_batch)
