"""Networks that nobody chose: cut and masked agree, and FLOPs are counted right."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pruned_networks.case import studied
from pruned_networks.grammar import networks
from sdk_pruning.layers import total_flops
from sdk_pruning.network_layers import network_layers

FEW = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
INPUTS = (torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0)),)


@FEW
@given(networks(), st.sampled_from(("heads", "dims")), st.integers(0, 1000))
def test_cut_and_masked_network_agree(model: nn.Module, attention: str, seed: int):
    found = studied(model, INPUTS, attention=attention)

    assert "fc1" in found.widths
    assert found.gap(found.removal(seed)) < 1e-4


@FEW
@given(networks(), st.integers(0, 1000))
def test_flops_are_those_that_torch_counts(model: nn.Module, seed: int):
    found = studied(model, INPUTS)
    removed = found.removal(seed)
    layers = network_layers(found.traced, found.structure)
    plain = tuple(layer for layer in layers if not layer.name.endswith((":scores", ":values")))
    fewer = {name: units - len(removed[name]) for name, units in found.widths.items()}

    for network, widths in ((found.model, found.widths), (found.cut(removed), fewer)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*INPUTS)
        assert total_flops(plain, widths) == counter.get_total_flops()


@FEW
@given(networks())
def test_every_channel_of_a_stem_without_norms_over_it_can_go_or_has_a_reason(model: nn.Module):
    found = studied(model, INPUTS)

    touched = {slot.tensor for group in found.structure.groups for slot in group.units[0].slots}
    assert "blocks.0.weight" in touched or found.structure.kept["blocks.0"]
