"""The contract suite's networks are what they claim: reproducible, alive, and traceable at every size."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from networks import CASES, Case, Inputs

# torch.export cannot know a dataclass that nobody registered; the front door flattens it before tracing.
UNREGISTERED = {"plain_dataclass"}

NAMES = sorted(CASES)


def _leaves(value: Any) -> list[torch.Tensor]:
    if dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return pytree.tree_leaves(value)


def _call(network: torch.nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    with torch.no_grad():
        return _leaves(network(*inputs.args, **inputs.kwargs))


def _export(case: Case) -> torch.export.ExportedProgram:
    return torch.export.export(
        case.build(),
        case.sample_inputs,
        case.sample_kwargs,
        dynamic_shapes=case.dynamic_shapes,
        strict=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_two_builds_give_equal_bits(name: str) -> None:
    case = CASES[name]
    first, second = case.build().state_dict(), case.build().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    outputs = [_call(case.build(), case.inputs(**case.sample)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_build_leaves_the_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    CASES[name].build()
    CASES[name].inputs(**CASES[name].sample)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_every_float_input_reaches_an_output(name: str) -> None:
    case = CASES[name]
    network, inputs = case.build(), case.inputs(**case.sample)
    leaves, spec = pytree.tree_flatten((inputs.args, dict(inputs.kwargs)))
    truth = _call(network, inputs)
    for i, leaf in enumerate(leaves):
        if not leaf.is_floating_point():
            continue
        args, kwargs = pytree.tree_unflatten([*leaves[:i], leaf + 0.5, *leaves[i + 1 :]], spec)
        moved = _call(network, Inputs(args, kwargs))
        assert any(not torch.equal(a, b) for a, b in zip(truth, moved, strict=True)), (
            f"input {i} does nothing"
        )


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_finite_and_alive_at_every_size(name: str) -> None:
    case = CASES[name]
    network = case.build()
    for sizes in (case.sample, *case.sizes):
        outputs = _call(network, case.inputs(**sizes))
        assert all(torch.isfinite(output.double()).all() for output in outputs)
        assert any(output.double().std() > 1e-2 for output in outputs if output.numel() > 1)


@pytest.mark.filterwarnings("ignore:The tensor attributes.*_flat_weights:UserWarning")  # nn.RNNBase's cache
@pytest.mark.parametrize("name", sorted(set(NAMES) - UNREGISTERED))
def test_the_trace_is_right_at_every_size(name: str) -> None:
    case = CASES[name]
    traced, eager = _export(case).module(), case.build()
    for sizes in (case.sample, *case.sizes):
        inputs = case.inputs(**sizes)
        with torch.no_grad():
            found = pytree.tree_leaves(traced(*inputs.args, **inputs.kwargs))
        for got, truth in zip(found, _call(eager, inputs), strict=True):
            torch.testing.assert_close(got, truth, rtol=1e-5, atol=1e-5)
