"""Heads and dims of attention, whatever the spelling."""

import pytest
import torch
from torch import Tensor, nn

from pruned_networks import CASES, study_of
from pruned_networks import expected as known
from pruned_networks.attention import Block, Separate, Timm
from pruned_networks.case import studied
from sdk_pruning.calls import Call
from sdk_pruning.changes import Reset
from sdk_pruning.checking import difference, outputs_of
from sdk_pruning.multihead import PrunedMultiheadAttention, follow_
from sdk_pruning.rescaling import Rescale, rescaled
from sdk_pruning.resizing import Resize


@pytest.mark.parametrize("name", known.HEADS)
def test_whole_heads_can_go(name):
    assert study_of(name).widths == known.HEADS[name]


@pytest.mark.parametrize("name", known.DIMS)
def test_dims_of_every_head_can_go(name):
    assert study_of(name, "dims").widths == known.DIMS[name]


def test_attributes_follow_where_the_code_has_them():
    found = study_of("Bert")

    changes = found.changes({"attn.query:heads": (1,)})

    assert changes == [Reset("attn", "num_attention_heads", 3), Reset("attn", "all_head_size", 12)]


def test_numbers_in_code_follow_where_no_attribute_says_them():
    found = study_of("Timm")

    changes = found.changes({"attn.qkv:heads": (1,)})

    # reshape(B, N, 3, heads, head_dim) and reshape(B, N, C)
    assert changes == [Resize("attn", 0, 3, 3), Resize("attn", 1, 2, 12)]
    assert type(found.cut({"attn.qkv:heads": (1,)}).attn).__mro__[1] is Timm


def test_a_shared_config_is_left_alone():
    found = study_of("Configured")

    cut = found.cut({"attn.q:heads": (0, 1)})

    assert (cut.attn.config.num_heads, cut.attn.config.head_dim) == (4, 4)
    assert cut.attn.q.out_features == 8


def test_queries_and_keys_make_up_for_a_scale_that_follows_the_dims():
    found = study_of("Separate", "dims")

    rescales = [one for one in found.changes({"attn.q:dims": (0,)}) if isinstance(one, Rescale)]

    assert {one.tensor for one in rescales} == {
        f"attn.{layer}.{part}" for layer in "qk" for part in ("weight", "bias")
    }
    assert all(one.factor == pytest.approx(0.75**0.25) for one in rescales)
    assert all(one.slices == tuple(range(12)) for one in rescales)


def test_a_stored_scale_needs_no_correction():
    found = study_of("OldTimm", "dims")

    assert not [one for one in found.changes({"attn.qkv:dims": (0,)}) if isinstance(one, Rescale)]


def test_a_wrong_softmax_scale_shows_even_when_scores_are_tiny():
    class Faint(Separate):
        def __init__(self) -> None:
            super().__init__()
            for layer in (self.q, self.k):
                nn.init.normal_(layer.weight, std=0.02)

    torch.manual_seed(0)
    found = studied(Block(Faint()).eval(), (torch.randn(2, 6, 16),), attention="dims")

    assert found.adapters["attn.q:dims"].rescaled == "keys"
    assert found.gap({"attn.q:dims": (0, 2)}) < 1e-6


def test_values_of_one_axis_with_queries_are_scaled_and_scaled_back():
    found = study_of("FusedFlatten", "dims")

    rescales = [one for one in found.changes({"attn.qkv:dims": (0,)}) if isinstance(one, Rescale)]

    factors = {one.tensor: one.factor for one in rescales}
    assert factors["attn.qkv.weight"] * factors["attn.proj.weight"] == pytest.approx(1)


def test_new_weights_and_added_biases_are_rescaled_alike():
    change = Rescale("q.weight", 0, (1,), 0.5)

    assert rescaled("q.weight", torch.ones(2, 3), [change]).tolist() == [[1, 1, 1], [0.5, 0.5, 0.5]]
    assert rescaled("q.bias", torch.ones(2), [change]).tolist() == [1, 0.5]
    assert rescaled("v.bias", torch.ones(2), [change, Reset("a", "b", 1)]).tolist() == [1, 1]


def test_rotary_dims_go_in_the_pairs_that_are_rotated():
    for name, pairs in (("rope_half", [[0, 2], [1, 3]]), ("rope_pairs", [[0, 1], [2, 3]])):
        group = study_of(name, "dims").structure.group("attn.q:dims")
        rows = [
            sorted({slot.index % 4 for slot in unit.slots if slot.tensor == "attn.q.weight"})
            for unit in group.units
        ]
        assert rows == pairs


@pytest.mark.parametrize("name", ["rope_qk_norm", "Unit", "TwoSizes"])
def test_normalised_queries_keep_their_dims(name):
    found = study_of(name, "dims")

    assert not [group for group in found.structure.groups if group.role == "dims"]


def masks(rows: int, columns: int, batch: int, heads: int) -> dict[str, dict[str, Tensor]]:
    causal = torch.full((rows, columns), float("-inf")).triu(1)
    padding = torch.zeros(batch, columns, dtype=torch.bool)
    padding[:, -1] = True
    return {
        "none": {},
        "causal": {"attn_mask": causal},
        "boolean": {"attn_mask": causal.isinf()},
        "every head": {"attn_mask": torch.randn(batch * heads, rows, columns)},
        "padding": {"key_padding_mask": padding},
        "both": {"key_padding_mask": padding, "attn_mask": causal.isinf()},
    }


@pytest.mark.parametrize("mask", masks(1, 1, 1, 1))
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("own_widths", [True, False])
def test_multihead_attention_is_torchs_own_before_anything_is_cut(
    mask, batch_first, need_weights, own_widths
):
    torch.manual_seed(0)
    widths = {"kdim": 10, "vdim": 6} if own_widths else {}
    theirs = nn.MultiheadAttention(8, 2, batch_first=batch_first, **widths).eval()
    nn.init.normal_(theirs.in_proj_bias)
    ours = nn.MultiheadAttention(8, 2, batch_first=batch_first, **widths).eval()
    ours.load_state_dict(theirs.state_dict())
    follow_(ours)
    inputs = [torch.randn(3, rows, width) for rows, width in ((5, 8), (7, widths.get("kdim", 8)))]
    inputs.append(torch.randn(3, 7, widths.get("vdim", 8)))
    inputs = inputs if batch_first else [one.transpose(0, 1) for one in inputs]

    options = {**masks(5, 7, 3, 2)[mask], "need_weights": need_weights}

    assert isinstance(ours, PrunedMultiheadAttention)
    for average in (True, False):
        results = [one(*inputs, **options, average_attn_weights=average) for one in (ours, theirs)]
        assert (results[0][1] is None) == (results[1][1] is None)
        assert difference(*results) < 1e-6


def test_multihead_attention_takes_single_sequences():
    torch.manual_seed(0)
    theirs, ours = (nn.MultiheadAttention(8, 2).eval() for _ in range(2))
    ours.load_state_dict(theirs.state_dict())
    follow_(ours)
    query, key = torch.randn(5, 8), torch.randn(7, 8)

    for need_weights in (True, False):
        results = [one(query, key, key, need_weights=need_weights) for one in (ours, theirs)]
        assert difference(*results) < 1e-6


def test_an_encoder_layer_leaves_torchs_fused_kernel_once_heads_are_gone():
    case, found = CASES["encoder_layer"], study_of("encoder_layer")
    removed = {"self_attn:heads": (0, 3)}
    cut = found.cut(removed)
    longer = torch.randn(3, 9, 16)
    masked = case.build()
    with torch.no_grad():
        masked.self_attn.out_proj.weight[:, [*range(4), *range(12, 16)]] = 0

    assert not cut.training
    assert difference(outputs_of(cut, Call((longer,))), outputs_of(masked, Call((longer,)))) < 1e-5
    assert cut.state_dict().keys() == masked.state_dict().keys()


def test_two_groups_never_share_one_attribute():
    found = study_of("TalkingHeads")  # heads of scores and heads of values go apart

    for removed in (
        {"attn.q:heads": (0,)},
        {"attn.v:heads": (1, 2)},
        {"attn.q:heads": (3,), "attn.v:heads": (0, 1)},
    ):
        assert found.gap(removed) < 1e-5
