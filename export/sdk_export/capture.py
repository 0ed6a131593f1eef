"""The front door: from a torch model to a `Captured` network.

    samples -> eager run (names of the outputs) -> torch.export -> passes -> specs

Eager fp32 is the truth, so the weights are checked first: a NaN in them would make every comparison pass
or fail by luck.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from sdk_export.captured import Arrays, Captured
from sdk_export.dims import FlatDims, Symbols, flat_dims, nested_dims, traceable
from sdk_export.names import Leaf, input_leaves, output_leaves, register_dataclasses
from sdk_export.samples import Samples, find_samples
from sdk_export.trace_errors import trace_error
from sdk_export.weights import on_cpu_in_float32, refuse_absent_weights, refuse_bad_weights
from sdk_export.written_state import written_state
from sdk_runtimes.errors import ArgumentError, SampleInputsError, SdkError, TraceError
from sdk_runtimes.specs import DTYPES, TensorSpec


def capture(
    model: nn.Module | ExportedProgram,
    *,
    name: str | None = None,
    sample_inputs: object = None,
    sample_kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: object = None,
) -> Captured:
    """Traces a model and gathers what every target needs.

    Args:
        model: a module (its weights are not copied) or an already exported program.
        name: of the program; the class name by default.
        sample_inputs: see `find_samples`.
        sample_kwargs: further keyword arguments.
        dynamic_shapes: see `flat_dims`.

    Raises:
        SampleInputsError: no sample inputs, or they do not fit.
        WeightsError: NaN or Inf in the weights.
        TraceError: torch.export cannot trace it, or it writes into its inputs or buffers.
    """
    if isinstance(model, ExportedProgram):
        return _from_exported(model, name, sample_inputs, sample_kwargs)
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            f"model is a {type(model).__name__}",
            why="an nn.Module, an ExportedProgram, or a path to an .onnx or .pt2 file can be exported",
            fix="sdk.export(module, …)",
        )
    refuse_absent_weights(model)
    refuse_bad_weights(model)
    samples = _as_float32(find_samples(model, sample_inputs, sample_kwargs))
    module = on_cpu_in_float32(model)
    register_dataclasses((samples.args, samples.kwargs))
    with _evaluating(module):
        leaves = input_leaves(module, samples)
        outputs = _run_eager(module, samples)
        register_dataclasses(outputs)
        dims = flat_dims(module, samples, dynamic_shapes)
        exported = _trace(module, samples, leaves, dims)
    return _captured(name or type(model).__name__, module, exported, samples, output_leaves(outputs), dims)


def _as_float32(samples: Samples) -> Samples:
    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        leaf = leaf.detach().cpu()
        return leaf.float() if leaf.is_floating_point() else leaf

    args, kwargs = pytree.tree_map(convert, (samples.args, samples.kwargs))
    return Samples(args, kwargs)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (dropout off, running statistics), and every module back as it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:  # not `model.eval()`, which the module of an ExportedProgram refuses
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Keeps torch from printing the half-made graph of a failed trace: the error says what is needed."""
    noisy = [logging.getLogger("torch.fx.experimental.symbolic_shapes"), logging.getLogger("torch._export")]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # nn.LSTM and nn.GRU alias their weights in a list that torch.export sees being written.
            warnings.filterwarnings("ignore", message=".*_flat_weights.*were assigned during export.*")
            # torch pickles its own tree specs through a class that it has deprecated.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated.*")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)


def _run_eager(model: nn.Module, samples: Samples) -> object:
    try:
        with torch.no_grad():
            return model(*samples.args, **samples.kwargs)
    except Exception as error:
        raise SampleInputsError(
            f"{type(model).__name__} fails on its own sample inputs: {type(error).__name__}: {error}",
            why="the model is run once in eager mode before it is traced",
            fix="pass inputs it accepts: sample_inputs=…",
        ) from error


def _trace(model: nn.Module, samples: Samples, leaves: Sequence[Leaf], dims: FlatDims) -> ExportedProgram:
    inputs = traceable(samples, leaves, dims)
    try:
        with torch.no_grad(), _quiet_torch():
            exported = torch.export.export(
                model,
                inputs.args,
                inputs.kwargs,
                dynamic_shapes=nested_dims(model, inputs, dims),
                strict=False,
            )
    except Exception as error:
        raise trace_error(model, error) from error
    refuse_side_effects(exported, type(model).__name__)
    return exported


def refuse_side_effects(exported: ExportedProgram, name: str) -> None:
    """Refuses programs that write into buffers or inputs: no target keeps such state for the caller.

    Raises:
        TraceError: names the buffers or inputs.
    """
    written = written_state(exported)
    if written:
        raise TraceError(
            f"{name}.forward writes into {', '.join(written)}",
            why="a program is a function: state that changes must go in and come out",
            fix="take the state as an argument of forward and return the new state",
        )


def _from_exported(
    exported: ExportedProgram,
    name: str | None,
    sample_inputs: object,
    sample_kwargs: Mapping[str, Any] | None,
) -> Captured:
    module = exported.module(check_guards=False)
    if sample_inputs is None and not sample_kwargs and exported.example_inputs is not None:
        sample_inputs, sample_kwargs = exported.example_inputs
    refuse_bad_weights(module)
    refuse_side_effects(exported, name or "the program")
    samples = _as_traced(exported, find_samples(module, sample_inputs, sample_kwargs))
    outputs = _run_eager(module, samples)
    return _captured(name or "program", module, exported, samples, output_leaves(outputs), {})


def _as_traced(exported: ExportedProgram, samples: Samples) -> Samples:
    """By position and by keyword as the program was traced: its module takes every input either way."""
    args, kwargs = exported.call_spec.in_spec.children()
    count, keywords = args.num_children, list(kwargs.context)
    by_name = {**dict(zip(keywords, samples.args[count:], strict=False)), **samples.kwargs}
    return Samples(samples.args[:count], {name: by_name[name] for name in keywords if name in by_name})


def _captured(
    name: str,
    module: nn.Module,
    exported: ExportedProgram,
    samples: Samples,
    outputs: Sequence[Leaf],
    dims: FlatDims,
) -> Captured:
    leaves = input_leaves(module, samples)
    tensors = {leaf: value for leaf, value in leaves if isinstance(value, torch.Tensor)}
    symbols = Symbols()
    traced = _placeholders(exported, leaves)
    for leaf, value in traced.items():
        symbols.learn(leaf, value, dims.get(leaf, {}))
    return Captured(
        name=name,
        exported=exported,
        inputs=tuple(_spec(leaf, value, symbols) for leaf, value in traced.items()),
        outputs=tuple(_spec(leaf, value, symbols) for leaf, value in _results(exported, outputs)),
        symbols=symbols.ranges(exported.range_constraints),
        samples={leaf: value.numpy() for leaf, value in tensors.items()},
        reference=_Reference(module, samples, leaves),
    )


def _placeholders(exported: ExportedProgram, leaves: Sequence[Leaf]) -> dict[str, torch.Tensor]:
    """Flat input name -> its fake tensor in the trace."""
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    traced: dict[str, torch.Tensor] = {}
    for (leaf, value), node in zip(leaves, exported.graph_signature.user_inputs, strict=True):
        if isinstance(value, torch.Tensor):
            assert isinstance(node, str)
            traced[leaf] = nodes[node].meta["val"]
    return traced


def _results(exported: ExportedProgram, outputs: Sequence[Leaf]) -> list[tuple[str, torch.Tensor]]:
    """Output names with their fake tensors; constants and None are left out."""
    (final,) = (node for node in exported.graph.nodes if node.op == "output")
    # Mutations come first among the outputs; there are none (`refuse_side_effects`).
    return [
        (leaf, node.meta["val"])
        for (leaf, value), node in zip(outputs, final.args[0], strict=True)
        if isinstance(value, torch.Tensor)
    ]


def _spec(name: str, value: torch.Tensor, symbols: Symbols) -> TensorSpec:
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise TraceError(
            f"{name!r} is {dtype}",
            why=f"a tensor that crosses the border is one of {', '.join(DTYPES)}",
            fix="complex numbers go as two real tensors, bfloat16 as float32",
        )
    return TensorSpec(name, dtype, symbols.shape(value))


class _Reference:
    """Eager fp32 on arrays by name."""

    def __init__(self, module: nn.Module, samples: Samples, leaves: Sequence[Leaf]) -> None:
        self.module = module
        self._leaves = tuple(leaves)
        _, self._structure = pytree.tree_flatten((samples.args, samples.kwargs))

    def __call__(self, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        flat = [
            torch.from_numpy(np.array(feeds[name])) if isinstance(value, torch.Tensor) else value
            for name, value in self._leaves
        ]
        args, kwargs = pytree.tree_unflatten(flat, self._structure)
        try:
            with torch.no_grad(), _evaluating(self.module):
                outputs = self.module(*args, **kwargs)
        except SdkError:
            raise
        except Exception as error:
            raise SampleInputsError(
                f"the model fails in eager mode: {type(error).__name__}: {error}",
                why="the quality gate draws inputs of its own within the range of the samples",
                fix="pass sample inputs that span what the model accepts",
            ) from error
        return {
            name: value.detach().numpy()
            for name, value in output_leaves(outputs)
            if isinstance(value, torch.Tensor)
        }
