"""What the contract suite holds a bundle to: eager PyTorch on the case's own inputs, by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

import sdk
from networks import Case, Inputs
from sdk_export.names import input_leaves, output_leaves
from sdk_export.samples import Samples
from sdk_runtimes.bundle import Bundle
from sdk_runtimes.feeds import Array
from sdk_runtimes.quality import compare
from sdk_runtimes.specs import ProgramSpec

Arrays = Mapping[str, Array]

FP32 = 1e-5
"""The parity that is promised: relative RMSE of every output."""


@dataclass(frozen=True)
class Shipped:
    """A case with its network and the bundle that came of it."""

    case: Case
    network: nn.Module
    bundle: Bundle

    def spec(self, target: str) -> ProgramSpec:
        return self.bundle.program(target=target)

    def runs(self) -> Iterator[tuple[str, Arrays, dict[str, Array]]]:
        """(sizes in words, feeds, truth) at the traced sizes and at all others, in the order of the case."""
        for sizes in (self.case.sample, *self.case.sizes):
            yield str(dict(sizes)), *eager(self.network, self.case.inputs(**sizes))

    def sample(self) -> tuple[Arrays, dict[str, Array]]:
        """Feeds and truth at the traced sizes."""
        return eager(self.network, self.case.inputs(**self.case.sample))


def ship(case: Case, out: Path, targets: Sequence[str], precision: str = "fp32") -> Shipped:
    """Exports a case with the gate on."""
    network = case.build()
    bundle = sdk.export(
        network,
        out,
        target=targets,
        sample_inputs=case.sample_inputs,
        sample_kwargs=case.sample_kwargs,
        dynamic_shapes=case.dynamic_shapes,
        precision=precision,
    )
    return Shipped(case, network, bundle)


def eager(network: nn.Module, inputs: Inputs) -> tuple[Arrays, dict[str, Array]]:
    """Feeds and outputs of one eager call, by name."""
    samples = Samples(inputs.args, dict(inputs.kwargs))
    feeds = {
        name: leaf.numpy() for name, leaf in input_leaves(network, samples) if isinstance(leaf, torch.Tensor)
    }
    with torch.no_grad():
        outputs = network(*inputs.args, **inputs.kwargs)
    return feeds, {
        name: leaf.numpy() for name, leaf in output_leaves(outputs) if isinstance(leaf, torch.Tensor)
    }


def on_arrays(network: nn.Module, inputs: Inputs) -> Callable[[Arrays], dict[str, Array]]:
    """The network as a function of arrays by name, for calls structured as `inputs`."""
    samples = Samples(inputs.args, dict(inputs.kwargs))
    names = [name for name, _ in input_leaves(network, samples)]
    _, structure = pytree.tree_flatten((samples.args, samples.kwargs))

    def call(feeds: Arrays) -> dict[str, Array]:
        tensors: list[Any] = [torch.from_numpy(np.array(feeds[name])) for name in names]
        args, kwargs = pytree.tree_unflatten(tensors, structure)
        return eager(network, Inputs(args, kwargs))[1]

    return call


def worst(truth: Arrays, got: Arrays) -> float:
    """The largest relative RMSE of all outputs; infinite where something is missing or not finite."""
    assert list(got) == list(truth), "names or order differ"
    assert all(got[name].dtype == truth[name].dtype for name in truth), "dtypes differ"
    return max(compare(truth[name], got[name]).rel_rmse for name in truth)
