"""What is cut computes what is masked, on every network, and a plan says all of it."""

import copy
import warnings

import pytest
import torch
from torch import nn

from pruned_networks import CASES, study_of
from pruned_networks import expected as known
from pruned_networks.case import studied
from sdk_pruning.calls import Call
from sdk_pruning.checking import difference, outputs_of
from sdk_pruning.plan import Plan, apply_plan
from sdk_pruning.propagation import state_of
from sdk_pruning.removal import removal_of

PLAIN = [name for name, groups in (known.CONVOLUTIONAL | known.DENSE | known.UNUSUAL).items() if groups]
EVERY = [(name, "heads") for name in (*PLAIN, *known.HEADS)]
EVERY += [(name, "dims") for name in (*known.DIMS, *known.UNUSUAL) if name not in ("Eca", "SpatialGate")]


def plan_of(found, removed) -> Plan:
    removal = removal_of(found.structure, removed)
    state = state_of(found.model)
    return Plan(
        groups={},
        slices=removal.slices,
        shapes={tensor: tuple(state[tensor].shape) for tensor in removal.slices},
        grouped=found.structure.findings.grouped,
        changes=tuple(found.changes(removed)),
    )


@pytest.mark.parametrize(("name", "attention"), EVERY)
def test_cut_and_masked_network_agree_at_random_removals(name, attention):
    found = study_of(name, attention)

    for seed in range(3):
        assert found.gap(found.removal(seed)) < 1e-5
    last = {group: tuple(range(1, units)) for group, units in found.widths.items()}
    assert found.gap(last) < 1e-5
    assert found.moved(last) > 1e-3


@pytest.mark.parametrize("name", ["resnext", "UNet", "Timm", "Torch"])
def test_the_dense_network_is_left_as_it_was(name):
    case = CASES[name]
    model = case.build()
    before, attributes = copy.deepcopy(model.state_dict()), {k: repr(m) for k, m in model.named_modules()}

    found = studied(model, case.inputs)
    found.cut(found.removal(0))

    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert {k: repr(m) for k, m in model.named_modules()} == attributes


@pytest.mark.parametrize(("name", "attention"), EVERY)
def test_a_plan_from_json_cuts_fresh_weights_alike(name, attention):
    found = study_of(name, attention)
    removed = found.removal(1)
    plan = Plan.from_json(plan_of(found, removed).to_json())

    again = apply_plan(CASES[name].build(), plan)

    assert plan == plan_of(found, removed)
    ours, theirs = (outputs_of(model, found.call) for model in (again, found.cut(removed)))
    assert difference(ours, theirs) == 0
    assert again.state_dict().keys() == found.model.state_dict().keys()
    assert isinstance(again, type(found.model))


@pytest.mark.parametrize(
    "name",
    ["resnext", "yolo_c2f", "lenet_hard_coded", "Timm", "Gpt2", "Torch", "encoder_layer", "Cross", "Swin"],
)
def test_a_cut_network_exports_runs_at_other_batches_and_trains(name):
    case, found = CASES[name], study_of(name)
    cut = found.cut(found.removal(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's, about its own internals
        exported = torch.export.export(cut, case.inputs, strict=False).module()
    smaller = Call(tuple(leaf[:1] for leaf in case.inputs))

    with torch.no_grad():
        assert difference([exported(*case.inputs)], outputs_of(cut, found.call)) < 1e-5
    assert difference(outputs_of(cut, smaller), [outputs_of(cut, found.call)[0][:1]]) < 1e-5
    cut(*case.inputs).sum().backward()
    assert any(parameter.grad is not None for parameter in cut.parameters())


def test_norms_without_parameters_follow():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(4, 8, affine=False),
        nn.Conv2d(8, 6, 3),
        nn.InstanceNorm2d(6),
        nn.Conv2d(6, 2, 1),
    ).eval()
    found = studied(model, (torch.randn(2, 3, 9, 9),))

    cut = found.cut({"0": (1, 2), "2": (0,)})

    assert (cut[1].num_groups, cut[1].num_channels, cut[3].num_features) == (2, 4, 5)
    assert found.gap({"0": (1, 2), "2": (0,)}) < 1e-5


def test_layers_say_their_new_sizes():
    found = study_of("resnext")

    cut = found.cut({"1.reduce.0": (0, 2)})

    spatial = cut[1].spatial[0]
    assert (spatial.groups, spatial.in_channels, spatial.out_channels) == (2, 6, 6)
    assert cut[1].spatial[1].num_features == 6


def test_tied_weights_stay_tied():
    found = study_of("TiedEmbedding")

    cut = found.cut({"head": (0, 3)})

    assert cut.head.weight is cut.embed.weight
    assert cut.embed.weight.shape == (11, 6)
    assert (cut.embed.embedding_dim, cut.head.in_features) == (6, 6)


def test_other_lengths_run_after_sizes_in_code_were_corrected():
    case = CASES["Timm"]
    found = studied(case.build(), case.inputs)
    removed = {"attn.qkv:heads": (0, 2)}
    cut = found.cut(removed)
    longer = torch.randn(3, 11, 16)

    # a dense network in which the two heads' values are zero computes the same
    masked = case.build()
    with torch.no_grad():
        masked.attn.proj.weight[:, [*range(4), *range(8, 12)]] = 0
    assert difference(outputs_of(cut, Call((longer,))), outputs_of(masked, Call((longer,)))) < 1e-5
