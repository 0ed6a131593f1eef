"""The closed forms of forgetting, each held against the direct computation on explicit data."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sdk_pruning.forgetting.editable_layers import EditableLayer, choose_layers, trace_layers
from sdk_pruning.forgetting.fidelity_suppression import fidelity_suppress_, kernel_scores, top_share
from sdk_pruning.forgetting.labelled import Labelled
from sdk_pruning.forgetting.moments import Moments, capture_moments, patches
from sdk_pruning.forgetting.ridge import edit_layer_, ridge_change, ridge_system
from sdk_pruning.forgetting.stages import silent
from sdk_runtimes.errors import ArgumentError, PruningError, UnknownChoiceError

property_test = settings(deadline=None, max_examples=25)
SEED = st.integers(0, 2**31 - 1)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moments_of(u: torch.Tensor) -> Moments:
    """Of explicit rows (B, N), one group."""
    return Moments(len(u), u.mean(0)[None], (u.T @ u / len(u))[None])


def two_sets(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Retained and forgotten features, of different means and spreads."""
    return drawn(seed, rows, columns) + 0.5, 2 * drawn(seed + 1, rows // 2 + 1, columns) - 1.5


def only(module: nn.Module, *, is_normed: bool = False) -> EditableLayer:
    assert isinstance(module, nn.Linear | nn.Conv2d)
    return EditableLayer("layer", module, 1, is_normed)


@property_test
@given(SEED, st.integers(2, 30), st.integers(1, 9), st.integers(1, 5), st.floats(0.01, 100))
def test_ridge_equals_a_direct_least_squares_solve(seed, rows, columns, outputs, strength):
    retained, forgotten = two_sets(seed, rows, columns)
    weight, mean = drawn(seed + 2, outputs, columns), retained.mean(0)
    second = moments_of(retained).covariance()
    unwanted = moments_of(forgotten).about(mean[None])
    epsilon = (ridge_system(second, unwanted, strength) - second - strength * unwanted)[0].diagonal()
    assert torch.all(epsilon > 0)
    system = torch.cat(  # one row an equation: keep, flatten, and the ridge towards W
        [
            (retained - mean) / len(retained) ** 0.5,
            (forgotten - mean) * (strength / len(forgotten)) ** 0.5,
            torch.diag(epsilon.sqrt()),
        ]
    )
    wanted = torch.cat(
        [
            (retained - mean) @ weight.T / len(retained) ** 0.5,
            torch.zeros(len(forgotten), outputs, dtype=torch.float64),
            torch.diag(epsilon.sqrt()) @ weight.T,
        ]
    )
    direct = torch.linalg.lstsq(system, wanted).solution.T
    change = ridge_change(weight[None], second, unwanted, strength)[0]
    torch.testing.assert_close(weight - change, direct, rtol=1e-5, atol=1e-7)


@property_test
@given(SEED, st.integers(3, 9), st.floats(0.01, 100))
def test_without_a_bias_no_small_step_that_keeps_the_mean_is_better(seed, columns, strength):
    retained, forgotten = two_sets(seed, 40, columns)
    weight, mean = drawn(seed + 2, 1, 2, columns), retained.mean(0)
    second, unwanted = moments_of(retained).covariance(), moments_of(forgotten).about(mean[None])
    edited = weight - ridge_change(weight, second, unwanted, strength, mean[None])
    torch.testing.assert_close(edited @ mean, weight @ mean)

    def objective(candidate):
        gone = weight - candidate
        total = gone @ second @ gone.mT + strength * candidate @ unwanted @ candidate.mT
        return total.diagonal(dim1=1, dim2=2).sum()

    step = drawn(seed + 3, 1, 2, columns)
    step = step - (step @ mean)[..., None] * mean / (mean @ mean)  # in the plane W'μ = Wμ
    slope = (objective(edited + 1e-4 * step) - objective(edited - 1e-4 * step)) / 2e-4
    assert abs(slope) < 1e-4 * (objective(weight) + objective(edited))  # the ridge itself is 1e-6


@property_test
@given(SEED, st.booleans(), st.booleans(), st.floats(0.01, 1e4))
def test_the_output_at_the_retain_mean_is_preserved(seed, has_bias, is_convolution, strength):
    torch.manual_seed(seed)
    layer = nn.Conv2d(2, 3, 2, bias=has_bias) if is_convolution else nn.Linear(8, 3, bias=has_bias)
    layer = layer.double()
    retained, forgotten = two_sets(seed, 30, 8)
    edited = only(layer)
    before = edited.matrix()[0] @ retained.mean(0) + (layer.bias.detach() if has_bias else 0)
    was = layer.weight.detach().clone()
    edit_layer_(edited, moments_of(retained), moments_of(forgotten), strength)
    after = edited.matrix()[0] @ retained.mean(0) + (layer.bias.detach() if has_bias else 0)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    assert not torch.equal(layer.weight, was)


@pytest.mark.parametrize("has_bias", [False, True])
def test_strength_zero_changes_no_bit(has_bias):
    layer = nn.Linear(6, 3, bias=has_bias)
    retained, forgotten = two_sets(0, 4, 6)  # fewer samples than features: S_r is singular
    was = {name: value.clone() for name, value in layer.state_dict().items()}
    edit_layer_(only(layer), moments_of(retained), moments_of(forgotten), 0.0)
    assert all(torch.equal(value, was[name]) for name, value in layer.state_dict().items())


def test_features_that_are_always_zero_leave_the_layer_as_it_was():
    layer = nn.Linear(4, 2)
    was = layer.weight.detach().clone()
    nothing = moments_of(torch.zeros(5, 4, dtype=torch.float64))
    edit_layer_(only(layer), nothing, nothing, 1.0)
    assert torch.equal(layer.weight, was)


def test_a_stronger_ridge_flattens_the_forgotten_more_and_keeps_the_retained_less():
    retained, forgotten = two_sets(3, 50, 5)
    weight, mean = drawn(9, 1, 4, 5), retained.mean(0)
    second, unwanted = moments_of(retained).covariance(), moments_of(forgotten).about(mean[None])
    left, lost = [], []
    for strength in (0.0, 0.1, 1.0, 10.0):
        change = ridge_change(weight, second, unwanted, strength)[0]
        left.append(float(((forgotten - mean) @ (weight[0] - change).T).square().mean()))
        lost.append(float(((retained - mean) @ change.T).square().mean()))
    assert left == sorted(left, reverse=True)
    assert lost == sorted(lost)
    assert left[-1] < 0.1 * left[0]


def test_groups_of_a_convolution_are_edited_each_alone():
    torch.manual_seed(0)
    grouped = nn.Conv2d(4, 6, 3, groups=2).double()
    alone = [nn.Conv2d(2, 3, 3).double() for _ in range(2)]
    for part, at in zip(alone, (0, 3), strict=True):
        part.weight.data.copy_(grouped.weight[at : at + 3])
        part.bias.data.copy_(grouped.bias[at : at + 3])
    kept, gone = drawn(5, 6, 4, 5, 5), drawn(6, 4, 4, 5, 5) + 1

    def edit(module: nn.Conv2d, channels: slice) -> None:
        (layer,) = trace_layers(nn.Sequential(module), kept[:1, channels])
        sets = (
            capture_moments(nn.Sequential(module), [layer], images[:, channels])["0"]
            for images in (kept, gone)
        )
        edit_layer_(layer, *sets, 2.0)

    was = grouped.weight.detach().clone()
    edit(grouped, slice(0, 4))
    edit(alone[0], slice(0, 2))
    edit(alone[1], slice(2, 4))
    torch.testing.assert_close(grouped.weight, torch.cat([part.weight for part in alone]))
    torch.testing.assert_close(grouped.bias, torch.cat([part.bias for part in alone]))
    assert not torch.allclose(grouped.weight, was)


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "padding": (2, 1), "stride": (1, 2), "dilation": (2, 1)},
    {"kernel_size": (4, 3), "padding": "same"},
    {"kernel_size": 2, "padding": "valid", "groups": 2},
    {"kernel_size": 3, "padding": 1, "groups": 4, "bias": False},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": "same", "padding_mode": "circular"},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's, about its copy
def test_patches_times_the_matrix_is_the_convolution(options):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, **options).double()
    x = drawn(1, 3, 4, 7, 6)
    found = only(layer)
    rows = patches(found, x) @ found.matrix().mT  # (groups, B · positions, m)
    y = rows.transpose(0, 1).flatten(1)
    if layer.bias is not None:
        y = y + layer.bias
    expected = layer(x).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(y, expected)


def test_moments_are_those_of_the_explicit_patches(monkeypatch):
    monkeypatch.setattr("sdk_pruning.forgetting.moments.CHUNK", 4)
    monkeypatch.setattr("sdk_pruning.forgetting.moments._MOST_VALUES", 1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)).double()
    x = drawn(2, 11, 2, 5, 5)
    ran = trace_layers(net, x[:1])
    moments = capture_moments(net, ran, x)
    for layer, read in zip(ran, (x, net[1](net[0](x))), strict=True):
        u = patches(layer, read.detach())
        assert moments[layer.name].count == u.shape[1]
        torch.testing.assert_close(moments[layer.name].mean, u.mean(1))
        centred = u - u.mean(1, keepdim=True)
        torch.testing.assert_close(moments[layer.name].covariance(), centred.mT @ centred / u.shape[1])


@pytest.mark.parametrize("is_normed", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_kernel_scores_are_the_row_sums_of_the_similarity(groups, is_normed):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, groups=groups, bias=False).double()
    x = drawn(3, 5, 4, 6, 6)
    found = EditableLayer("0", layer, 1, is_normed)
    scores = kernel_scores(found, capture_moments(nn.Sequential(layer), [found], x)["0"])
    y = layer(x).detach()
    inside, each = 4 // groups, 6 // groups
    for group in range(groups):
        for c in range(each):
            for i in range(inside):
                kernel = layer.weight.detach()[group * each + c, i][None, None]
                part = F.conv2d(x[:, [group * inside + i]], kernel)[:, 0]
                whole = y[:, group * each + c]
                value = (whole * part).mean()
                if is_normed:
                    value = value - whole.mean() * part.mean()
                assert scores[group, c, i].item() == pytest.approx(value.item(), rel=1e-9, abs=1e-12)


def test_scores_of_a_row_add_up_to_the_energy_of_the_output():
    layer = nn.Linear(7, 3, bias=False).double()
    x = drawn(4, 20, 7)
    found = only(layer)
    scores = kernel_scores(found, moments_of(x))
    torch.testing.assert_close(scores.sum(2)[0], layer(x).detach().square().mean(0))


@property_test
@given(SEED, st.floats(0.001, 1))
def test_the_top_share_are_the_highest_positive_scores(seed, share):
    scores = drawn(seed, 2, 3, 5)
    chosen = top_share(scores, share)
    assert 0 < int(chosen.sum()) <= max(1, -int(-share * 30 // 1))
    assert scores[chosen].min() > 0
    assert bool((scores[~chosen] <= scores[chosen].min()).all())


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_fidelity_scales_exactly_the_chosen_kernels(factor):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 3))
    forget = Labelled(torch.randn(6, 3, 4, 4), torch.zeros(6, dtype=torch.int64))
    (layer, _) = trace_layers(net, forget.inputs[:1])
    scores = kernel_scores(layer, capture_moments(net, [layer], forget.inputs)["0"])[0]
    was = net[0].weight.detach().clone()
    used = fidelity_suppress_(net, [layer], forget, forget, 0.25, factor, silent)
    assert used == 0.25
    best = scores.flatten().argsort(descending=True)[:3]  # a quarter of 12
    for kernel in range(12):
        c, i = divmod(kernel, 3)
        expected = was[c, i] * (factor if kernel in best else 1)
        assert torch.equal(net[0].weight[c, i], expected)


class Reused(nn.Module):
    """One layer in two places, one tied, one whose weight is computed, one that scales."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.computed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.tied = nn.Linear(4, 4)
        self.other = nn.Embedding(4, 4)
        self.other.weight = self.tied.weight
        self.scaled = Scaled(4, 4)
        self.head = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.scaled(self.tied(self.computed(self.twice(self.twice(x)))))
        return self.norm(self.head(x))


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_layers_come_in_the_order_in_which_they_run():
    ran = trace_layers(Reused(), torch.randn(2, 4))
    assert [layer.name for layer in ran] == ["twice", "computed", "tied", "scaled", "head"]
    assert [layer.calls for layer in ran] == [2, 1, 1, 1, 1]
    assert [layer.name for layer in ran if layer.is_normed] == ["head"]


@pytest.mark.parametrize(
    ("name", "why"), [("twice", "runs 2 times"), ("computed", "computed from"), ("tied", "one parameter")]
)
def test_a_layer_that_cannot_be_edited_alone_is_refused_by_name(name, why):
    net = Reused()
    ran = trace_layers(net, torch.randn(2, 4))
    with pytest.raises(PruningError, match=why) as caught:
        choose_layers(net, ran, [name], ran)
    assert name in caught.value.what
    assert caught.value.fix
    assert [layer.name for layer in choose_layers(net, ran, 1, ran)] == ["head"]


def test_a_subclass_that_computes_something_else_is_refused():
    net = Reused().eval()
    ran = {layer.name: layer for layer in trace_layers(net, torch.randn(2, 4))}
    with pytest.raises(PruningError, match=r"'scaled'.*does not compute"):
        capture_moments(net, [ran["scaled"]], torch.randn(5, 4))
    assert capture_moments(net, [ran["head"]], torch.randn(5, 4))["head"].count == 5


@pytest.mark.parametrize(
    ("wanted", "error"),
    [(0, ArgumentError), (6, ArgumentError), ([], ArgumentError), (["unused"], UnknownChoiceError)],
)
def test_layers_that_are_none_are_refused(wanted, error):
    net = Reused()
    ran = trace_layers(net, torch.randn(2, 4))
    with pytest.raises(error) as caught:
        choose_layers(net, ran, wanted, ran)
    assert "head" in str(caught.value) or "5" in caught.value.fix


def test_tracing_leaves_modes_and_hooks_as_they_were():
    net = Reused()
    net.head.eval()
    modes = [module.training for module in net.modules()]
    trace_layers(net, torch.randn(2, 4))
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert int(net.norm.num_batches_tracked) == 0


def test_a_layer_whose_moments_would_fill_the_memory_is_refused():
    net = nn.Sequential(nn.Linear(20_000, 2))
    ran = trace_layers(net, torch.zeros(1, 20_000))
    with pytest.raises(PruningError, match=r"reads 20000 values") as caught:
        capture_moments(net, ran, torch.zeros(1, 20_000))
    assert "3.0 GiB" in caught.value.why
