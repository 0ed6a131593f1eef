"""FLOPs that the layers say are those that torch counts, before and after surgery."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pruned_networks import CASES, study_of
from pruned_networks import expected as known
from pruned_networks.case import Studied
from sdk_pruning.layers import total_flops
from sdk_pruning.network_layers import network_layers

FUSED = {"Torch", "encoder_layer"}
"""torch's counter does not see into their fused kernels."""

UNFUSED = {"Alibi"}
"""A mask of three axes makes torch run attention as products, which its counter counts."""

NETWORKS = known.CONVOLUTIONAL | known.DENSE | known.HEADS | known.UNUSUAL
PLAIN = [name for name in NETWORKS if name not in FUSED | UNFUSED]


def counted(model: nn.Module, found: Studied) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*found.call.args)
    return counter.get_total_flops()


def said(found: Studied, removed: dict[str, tuple[int, ...]] | None = None) -> float:
    """Without fused attention, which torch's counter does not count on the CPU."""
    layers = network_layers(found.traced, found.structure)
    widths = {name: units - len((removed or {}).get(name, ())) for name, units in found.widths.items()}
    return total_flops(
        tuple(layer for layer in layers if not layer.name.endswith((":scores", ":values"))), widths
    )


@pytest.mark.parametrize("name", PLAIN)
def test_flops_are_those_that_torch_counts(name):
    found = study_of(name)

    assert said(found) == counted(found.model, found)
    for seed in range(2):
        removed = found.removal(seed)
        assert said(found, removed) == counted(found.cut(removed), found)


@pytest.mark.parametrize("name", ["OldTimm", "Timm", "Einsum", "Gpt2", "Swin", "LinearAttention", "AdaLN"])
def test_flops_follow_the_dims(name):
    found = study_of(name, "dims")
    removed = found.removal(0)

    assert said(found, removed) == counted(found.cut(removed), found)


@pytest.mark.parametrize("name", UNFUSED)
def test_attention_that_is_not_fused_is_counted_whole(name):
    found = study_of(name)
    layers = network_layers(found.traced, found.structure)

    assert total_flops(layers, found.widths) == counted(found.model, found)


def test_fused_attention_counts_scores_and_values():
    found = study_of("Separate")
    layers = {layer.name: layer for layer in network_layers(found.traced, found.structure)}
    full, fewer = found.widths, found.widths | {"attn.q:heads": 3}

    for part in (":scores", ":values"):
        layer = next(layer for name, layer in layers.items() if name.endswith(part))
        assert (
            layer.flops(full) == 2 * 2 * 4 * 6 * 6 * 4
        )  # two a multiply-add: batch, heads, queries, keys, dims
        assert layer.flops(fewer) == layer.flops(full) * 3 / 4


def test_a_layer_can_be_built_alone_at_any_width():
    found = study_of("mobilenet_v2")
    layers = [layer for layer in network_layers(found.traced, found.structure) if layer.build is not None]

    for layer in layers:
        module, sample = layer.build(4, 6)
        assert module(sample).shape[1 if sample.ndim == 4 else -1] == 6
    assert len(layers) == len([m for m in found.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)])


def test_names_are_unique():
    for name in CASES:
        if name not in known.REFUSED:
            layers = network_layers(study_of(name).traced, study_of(name).structure)
            assert len({layer.name for layer in layers}) == len(layers)
