"""What can go from networks as they are met in the wild, and why the rest stays."""

import pytest
import torch
from torch import nn

from pruned_networks import ATTENTION, CASES, CONVOLUTIONAL, DENSE, UNUSUAL, study_of
from pruned_networks import expected as known
from pruned_networks.case import studied
from sdk_runtimes.errors import ArgumentError, PruningError, UnknownChoiceError

PLAIN = known.CONVOLUTIONAL | known.DENSE | known.UNUSUAL


def test_every_network_has_an_expectation():
    assert set(CONVOLUTIONAL | DENSE | UNUSUAL) == set(PLAIN) | set(known.REFUSED)
    assert set(ATTENTION) == set(known.HEADS) == set(known.DIMS)


@pytest.mark.parametrize("name", PLAIN)
def test_groups_are_those_that_the_architecture_allows(name):
    assert study_of(name).widths == PLAIN[name]


@pytest.mark.parametrize("name", known.KEPT)
def test_what_stays_has_a_reason(name):
    found = study_of(name).structure.kept

    for module, reason in known.KEPT[name].items():
        assert reason in found[module]


@pytest.mark.parametrize("name", known.REFUSED)
def test_a_layer_called_twice_is_refused_by_name(name):
    with pytest.raises(PruningError, match=known.REFUSED[name]):
        studied(CASES[name].build(), CASES[name].inputs)


def test_a_layer_called_twice_can_be_protected():
    case = CASES["ChannelAttention"]

    found = studied(case.build(), case.inputs, protect=("fc1",))

    assert "stem.0" in found.widths
    assert "fc1" in found.structure.kept
    assert found.gap(found.removal(0)) < 1e-5


def test_whole_norm_groups_go_together():
    found = study_of("UNet")

    for unit in found.structure.group("enc1.0").units:
        rows = sorted(slot.index for slot in unit.slots if (slot.tensor, slot.axis) == ("enc1.0.weight", 0))
        assert rows in ([0, 1], [2, 3], [4, 5], [6, 7])


def test_both_halves_of_a_gate_go_together():
    found = study_of("ChunkGLU")

    for number, unit in enumerate(found.structure.group("up").units):
        rows = sorted(slot.index for slot in unit.slots if (slot.tensor, slot.axis) == ("up.weight", 0))
        assert rows == [number, number + 16]


def test_a_flattened_channel_takes_all_its_positions_along():
    found = study_of("lenet")

    unit = found.structure.group("conv2").units[3]
    columns = sorted(slot.index for slot in unit.slots if (slot.tensor, slot.axis) == ("fc1.weight", 1))
    assert columns == list(range(27, 36))


def test_protection_keeps_a_module_and_all_below_it():
    case = CASES["resnet_basic"]

    found = studied(case.build(), case.inputs, protect=("3",))

    assert set(found.widths) == {"4.conv1.0", "4.conv2.0"}  # the stem is tied to the block's output
    assert "protect='3'" in found.structure.kept["0.0"]


def test_protection_knows_tied_weights_by_all_their_names():
    case = CASES["TiedEmbedding"]

    for name in ("embed", "head"):
        assert set(studied(case.build(), case.inputs, protect=(name,)).widths) == {"up"}


def test_a_pattern_that_fits_nothing_lists_the_modules():
    case = CASES["lenet"]

    with pytest.raises(ArgumentError, match="conv1, conv2, fc1"):
        studied(case.build(), case.inputs, protect=("classifier",))


def test_an_unknown_choice_for_attention_lists_the_known_ones():
    case = CASES["Timm"]

    with pytest.raises(UnknownChoiceError, match="'heads', 'dims', 'none'"):
        studied(case.build(), case.inputs, attention="rows")


def test_attention_stays_whole_where_it_is_told_to():
    case = CASES["Timm"]

    assert studied(case.build(), case.inputs, attention="none").widths == {"fc1": 32}


def test_only_whole_key_heads_go_and_take_their_queries_along():
    found = study_of("gqa_interleave")

    unit = found.structure.group("attn.wq:heads").units[1]
    rows = {
        tensor: sorted(slot.index for slot in unit.slots if (slot.tensor, slot.axis) == (f"attn.{tensor}", 0))
        for tensor in ("wq.weight", "wk.weight", "wv.weight")
    }
    assert rows == {
        "wq.weight": list(range(8, 16)),
        "wk.weight": [4, 5, 6, 7],
        "wv.weight": [4, 5, 6, 7],
    }


def test_one_channel_is_no_group():
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), nn.Conv2d(1, 4, 3)).eval()

    assert studied(model, (torch.randn(2, 3, 8, 8),)).widths == {}
