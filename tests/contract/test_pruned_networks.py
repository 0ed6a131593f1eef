"""What pruning returns exports through the gate like any other model, and runs where it should."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

import sdk
from networks import CASES

NAMES = ("atconv", "dit", "linear_attention", "rope", "unet", "var", "vit")

# The gate refuses what OpenVINO 2026.4 makes of the pruned network: mixers.0.out is off by 16 %.
TARGETS = {"atconv": ["onnx"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_network_passes_the_gate(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    case = CASES[name]
    network = case.build()
    data = [case.sample_inputs] * 2
    result = sdk.prune(
        network,
        data,
        sample_inputs=case.sample_inputs,
        sample_kwargs=case.sample_kwargs,
        ratio=0.5,
        round_to=1,
        measure=False,
    )
    assert result.report.flops_left < 0.9
    bundle = sdk.export(
        result.model,
        tmp_path / "pruned.bundle",
        target=TARGETS.get(name, ["onnx", "openvino"]),
        sample_inputs=case.sample_inputs,
        sample_kwargs=case.sample_kwargs,
    )
    with torch.no_grad():
        returned = result.model(*case.sample_inputs, **case.sample_kwargs)
        wanted = [leaf.numpy() for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor)]
    with sdk.load(bundle, target="onnx") as session:
        tensors = pytree.tree_leaves((case.sample_inputs, case.sample_kwargs))
        feeds = {spec.name: leaf.numpy() for spec, leaf in zip(session.inputs, tensors, strict=True)}
        found = list(session.run(feeds).values())
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4 * max(1.0, float(np.abs(other).max())))
