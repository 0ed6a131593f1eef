"""`Captured` built by hand from a module, for tests that need no front door."""

import warnings
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from sdk_export.captured import Arrays, Captured
from sdk_runtimes.specs import SymbolRange, TensorSpec


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy()


def capture(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    *,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    names: tuple[str, ...] | None = None,
    outputs: tuple[str, ...] | None = None,
    name: str = "net",
) -> Captured:
    """Traces a module; names default to those of the placeholders and to the keys of the outputs."""
    kwargs = kwargs or {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The tensor attributes .*_flat_weights")  # nn.GRU, nn.LSTM
        exported = torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes)
    with torch.no_grad():
        results = module(*args, **kwargs)
    flat, tree = pytree.tree_flatten((args, kwargs))
    flat_results, _ = pytree.tree_flatten(results)
    in_names = names or tuple(exported.graph_signature.user_inputs)
    out_names = outputs or tuple(_keys(results))
    placeholders = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    values = [placeholders[item].meta["val"] for item in exported.graph_signature.user_inputs]

    def reference(arrays: Arrays) -> dict[str, np.ndarray]:
        tensors = [torch.from_numpy(np.asarray(arrays[item])) for item in in_names]
        again_args, again_kwargs = pytree.tree_unflatten(tensors, tree)
        with torch.no_grad():
            given, _ = pytree.tree_flatten(module(*again_args, **again_kwargs))
        return dict(zip(out_names, map(_array, given), strict=True))

    return Captured(
        name=name,
        exported=exported,
        inputs=tuple(_spec(item, value) for item, value in zip(in_names, values, strict=True)),
        outputs=tuple(_spec(item, value) for item, value in zip(out_names, flat_results, strict=True)),
        symbols=tuple(
            SymbolRange(str(symbol), int(bounds.lower), int(min(bounds.upper, 4096)))
            for symbol, bounds in exported.range_constraints.items()
        ),
        samples=dict(zip(in_names, map(_array, flat), strict=True)),
        reference=reference,
    )


def _keys(results: Any) -> list[str]:
    if isinstance(results, dict):
        return list(results)
    flat, _ = pytree.tree_flatten(results)
    return ["output"] if len(flat) == 1 else [f"output_{index}" for index in range(len(flat))]


def _spec(name: str, value: torch.Tensor) -> TensorSpec:
    shape = tuple(int(dim) if isinstance(dim, int) else str(dim) for dim in value.shape)
    return TensorSpec(name, str(value.dtype).removeprefix("torch."), shape)
