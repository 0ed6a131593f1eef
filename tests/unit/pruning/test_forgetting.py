"""`forget` from end to end on a small trained network: what it edits, what it reports, what it refuses."""

import copy
import dataclasses
import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdk_pruning.forgetting.calibrated_bn import reestimate_batch_norms_
from sdk_pruning.forgetting.fidelity_suppression import SHARES
from sdk_pruning.forgetting.forget import ForgetResult, forget, forget_
from sdk_pruning.forgetting.labelled import Labelled, halves, read, split_by_class
from sdk_pruning.forgetting.probe import train_probe
from sdk_pruning.forgetting.report import (
    NOT_SUPPRESSED,
    SUPPRESSION,
    SUPPRESSION_NOT_RECALLED,
    Accuracy,
    Assessment,
)
from sdk_runtimes.errors import ArgumentError, PruningError, SdkError, UnknownChoiceError, WeightsError

CLASSES, FORGOTTEN = 4, 2


def samples(count: int, seed: int) -> Labelled:
    """Noisy 6 x 6 patterns, one a class, moved by up to one pixel."""
    patterns = torch.randn(CLASSES, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=rng)
    rows, columns = torch.randint(3, (2, count), generator=rng).tolist()
    moved = [
        patterns[label, :, r : r + 6, c : c + 6] for label, r, c in zip(labels, rows, columns, strict=True)
    ]
    return Labelled(torch.stack(moved) + 0.5 * torch.randn(count, 1, 6, 6, generator=rng), labels)


def small_cnn() -> nn.Sequential:
    """Biases only where no batch norm follows."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, CLASSES),
    )


class Tokens(nn.Module):
    """Six tokens, one transformer layer, the mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.places = nn.Parameter(torch.randn(6, 16) * 0.3)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.layer(self.embed(image[:, 0]) + self.places)
        logits: Tensor = self.classifier(tokens).mean(1)
        return logits


def trained(network: nn.Module, steps: int) -> nn.Module:
    data = samples(600, seed=1)
    solver = torch.optim.AdamW(network.parameters(), 1e-2)
    rng = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(steps):
        rows = torch.randint(len(data), (64,), generator=rng)
        solver.zero_grad()
        F.cross_entropy(network(data.inputs[rows]), data.labels[rows]).backward()
        solver.step()
    return network.eval()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cnn():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trained(small_cnn(), 150)


@pytest.fixture(scope="module")
def tokens():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trained(Tokens(), 200)


@pytest.fixture(scope="module")
def sets():
    return split_by_class(pair(samples(400, seed=2)), [FORGOTTEN])


def pair(data: Labelled) -> tuple[Tensor, Tensor]:
    return data.inputs, data.labels


def run(model: nn.Module, sets: tuple[Labelled, Labelled], **options: object) -> ForgetResult:
    return forget(model, pair(sets[0]), pair(sets[1]), **options)


def right(model: nn.Module, data: Labelled) -> float:
    with torch.no_grad():
        return (model(data.inputs).argmax(1) == data.labels).double().mean().item()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_class_is_suppressed_the_rest_stays_and_the_report_admits_it(cnn, sets):
    before = snapshot(cnn)
    modes = [module.training for module in cnn.modules()]
    result = run(cnn, sets)
    measured = result.report.measured
    assert measured.before.forget > 0.9
    assert measured.before.retain > 0.9
    assert measured.after.forget < 0.1
    assert measured.after.retain > 0.9
    assert result.report.verdict == SUPPRESSION
    assert measured.probe_recalls
    assert same(cnn, before)
    assert [module.training for module in cnn.modules()] == modes
    assert not same(result.model, before)


def test_re_estimated_batch_norms_bring_back_what_fidelity_suppressed_and_not_what_ridge_did(cnn, sets):
    zeroed = run(cnn, sets, method="fidelity", strength=0.1).report
    assert zeroed.measured.batch_norm.forget > 0.5
    assert "BN re-estimation brings back" in str(zeroed)
    assert run(cnn, sets).report.measured.batch_norm.forget < 0.1


def test_the_share_of_kernels_by_default_is_the_one_with_the_widest_gap(cnn, sets):
    gone, kept = (halves(part, "", 0).fit for part in sets)
    gaps = {}
    for share in SHARES:
        network = run(cnn, sets, method="fidelity", strength=share).model
        gaps[share] = right(network, kept) - right(network, gone)
    chosen = run(cnn, sets, method="fidelity").report.strength
    assert chosen == min(share for share in SHARES if gaps[share] == max(gaps.values()))
    assert len(set(gaps.values())) > 2


def test_every_number_is_the_one_computed_by_hand(cnn, sets):
    result = run(cnn, sets, seed=5)
    report, measured = result.report, result.report.measured
    gone, kept = halves(sets[0], "", 5), halves(sets[1], "", 5)
    assert (report.forget_samples, report.retain_samples) == (len(gone.held_out), len(kept.held_out))
    assert measured.before == Accuracy(right(cnn, gone.held_out), right(cnn, kept.held_out))
    assert measured.after == Accuracy(right(result.model, gone.held_out), right(result.model, kept.held_out))

    again = copy.deepcopy(result.model)
    for at in (1, 4):  # in order: the second norm reads what the first one, re-estimated in training, gives
        parts = []
        for chunk in kept.fit.inputs.tensor_split(2):  # 150 samples, at most 128 at once
            value = chunk
            for module in again[:at]:
                is_norm = isinstance(module, nn.BatchNorm2d)
                value = module.train()(value) if is_norm else module(value)
            parts.append(value.detach().transpose(0, 1).flatten(1))
        again[at].running_mean = torch.stack([part.mean(1) for part in parts]).mean(0)
        again[at].running_var = torch.stack([part.var(1) for part in parts]).mean(0)
        by_sdk = copy.deepcopy(result.model)
        assert reestimate_batch_norms_(by_sdk, kept.fit.inputs) == 2
        torch.testing.assert_close(by_sdk[at].running_mean, again[at].running_mean)
        torch.testing.assert_close(by_sdk[at].running_var, again[at].running_var)
    assert len(kept.fit) == 150
    assert measured.batch_norm == Accuracy(right(by_sdk, gone.held_out), right(by_sdk, kept.held_out))

    for network, probed in ((cnn, measured.probe_before), (result.model, measured.probe_after)):
        with torch.no_grad():
            features = network[:-1](torch.cat([gone.fit.inputs, kept.fit.inputs])).double()
            probe = train_probe(features, torch.cat([gone.fit.labels, kept.fit.labels]), CLASSES)
            found = [
                (probe.logits(network[:-1](half.inputs).double()).argmax(1) == half.labels).double().mean()
                for half in (gone.held_out, kept.held_out)
            ]
        assert probed == Accuracy(*(value.item() for value in found))

    with torch.no_grad():
        allowed = [label for label in range(CLASSES) if label != FORGOTTEN]
        named = torch.tensor(allowed)[cnn(kept.held_out.inputs)[:, allowed].argmax(1)]
    share = (named == kept.held_out.labels).double().mean().item()
    assert measured.logit_mask == Accuracy(0.0, share)


def test_the_probe_is_the_minimum_of_its_loss():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(90, 5, generator=rng, dtype=torch.float64) * torch.tensor([1.0, 9, 0, 3, 1])
    labels = (features[:, [0, 1, 3]] / torch.tensor([1, 9, 6])).argmax(1)  # the last one is rare
    probe = train_probe(features, labels, 4)
    weight = probe.weight.clone().requires_grad_()
    bias = probe.bias.clone().requires_grad_()
    x = (features - probe.mean) * probe.scale
    counts = labels.bincount(minlength=4)
    losses = [
        F.cross_entropy(x[labels == c] @ weight.T + bias, labels[labels == c]) for c in range(3) if counts[c]
    ]
    (sum(losses) / len(losses) + 1e-3 / 2 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-3
    assert bias.grad.abs().max() < 1e-3
    assert (probe.logits(features).argmax(1) == labels).double().mean() > 0.9
    assert probe.scale[2] == 0


def test_a_network_with_layer_norms_is_negated_and_its_modules_are_seen(tokens, sets):
    result = run(tokens, sets, method="fidelity")
    assert result.report.edit == "negated"
    assert result.report.measured.batch_norm is None
    assert result.report.layers == ("embed", "layer.linear1", "layer.linear2")
    assert "no batch norm" in str(result.report)
    for name in ("layer.linear1", "layer.linear2"):
        was, now = tokens.get_submodule(name).weight, result.model.get_submodule(name).weight
        assert torch.equal(was.abs(), now.abs())
        assert (was == -now).any()
    measured = result.report.measured
    assert measured.after.forget < measured.before.forget


def test_ridge_works_on_tokens(tokens, sets):
    measured = run(tokens, sets).report.measured
    assert measured.after.forget < 0.1
    assert measured.after.retain > measured.before.retain - 0.1


def test_strength_zero_gives_the_network_back(cnn, sets):
    result = run(cnn, sets, strength=0)
    assert same(result.model, snapshot(cnn))
    assert result.report.verdict == NOT_SUPPRESSED
    assert result.report.measured.after == result.report.measured.before


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, ("3", "8")),
        ({"layers": 1}, ("8",)),
        ({"layers": ["3", "0"]}, ("0", "3")),
        ({"method": "fidelity"}, ("0", "3")),
    ],
)
def test_layers_by_default_and_by_choice(cnn, sets, options, layers):
    result = run(cnn, sets, **options)
    assert result.report.layers == layers
    changed = {
        name.split(".")[0]
        for name, value in snapshot(cnn).items()
        if not torch.equal(value, result.model.state_dict()[name])
    }
    assert changed == set(layers)


def test_in_place_is_the_same_edit(cnn, sets):
    result = run(cnn, sets)
    network = copy.deepcopy(cnn)
    report = forget_(network, pair(sets[0]), pair(sets[1]))
    assert report == result.report
    assert same(network, snapshot(result.model))


def test_in_place_leaves_the_network_where_it_refuses(cnn, sets, monkeypatch):
    network = copy.deepcopy(cnn)

    def fail(*_args: object) -> None:
        raise PruningError("late", why="a test", fix="none")

    monkeypatch.setattr("sdk_pruning.forgetting.forget.assess", fail)
    with pytest.raises(PruningError, match="late"):
        forget_(network, pair(sets[0]), pair(sets[1]))
    assert same(network, snapshot(cnn))


def test_generators_loaders_and_pairs_are_the_same_data(cnn, sets):
    gone, kept = sets
    from_pair = run(cnn, sets).report
    generated = forget(
        cnn,
        ((gone.inputs[i : i + 9], gone.labels[i : i + 9]) for i in range(0, len(gone), 9)),
        [[kept.inputs[:50], kept.labels[:50]], [kept.inputs[50:], kept.labels[50:]]],
    )
    assert generated.report == from_pair


def test_the_same_seed_gives_the_same_bits_and_draws_nothing_from_the_global_generator(cnn, sets):
    state = torch.get_rng_state()
    one, two = run(cnn, sets, seed=3), run(cnn, sets, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.report == two.report
    assert same(two.model, snapshot(one.model))
    assert not same(run(cnn, sets, seed=4).model, snapshot(one.model))


def test_several_classes_at_once(cnn):
    report = run(cnn, split_by_class(pair(samples(400, seed=2)), [0, 3])).report
    assert report.classes == (0, 3)
    assert report.measured.after.forget < 0.1
    assert report.measured.after.retain > 0.8


def test_progress_ends_with_all_measured(cnn, sets):
    told: list[tuple[str, int, int]] = []
    run(cnn, sets, progress=lambda *row: told.append(row))
    assert told[0] == ("ridge", 0, 2)
    assert told[-1] == ("measuring", 1, 1)


def test_the_report_prints_as_a_table_and_is_json(cnn, sets):
    report = run(cnn, sets).report
    lines = str(report).splitlines()
    assert f"forget class {FORGOTTEN}: ridge, strength 1, ridge" in lines[0]
    row = next(line for line in lines if line.strip().startswith("after  "))
    assert row.split()[-2:] == [f"{report.measured.after.forget:.1%}", f"{report.measured.after.retain:.1%}"]
    assert lines[-1].startswith(
        "verdict: suppression: the information is still there: a linear probe recalls"
    )
    assert json.loads(json.dumps(dataclasses.asdict(report)))["measured"]["before"]["forget"] == (
        report.measured.before.forget
    )


GOOD, NONE, FOUND = Accuracy(1.0, 1.0), Accuracy(0.0, 1.0), Accuracy(0.6, 1.0)


@pytest.mark.parametrize(
    ("after", "batch_norm", "probe", "verdict"),
    [
        (Accuracy(0.2, 1.0), NONE, NONE, NOT_SUPPRESSED),
        (NONE, NONE, FOUND, SUPPRESSION),
        (NONE, FOUND, NONE, SUPPRESSION),
        (NONE, None, FOUND, SUPPRESSION),
        (NONE, None, NONE, SUPPRESSION_NOT_RECALLED),
        (NONE, NONE, Accuracy(0.4, 1.0), SUPPRESSION_NOT_RECALLED),
    ],
)
def test_the_verdict_follows_from_what_was_recalled(after, batch_norm, probe, verdict):
    measured = Assessment(GOOD, after, batch_norm, GOOD, probe, NONE)
    assert measured.verdict == verdict
    for word in ("eras", "delet", "remov", "forgotten for"):
        assert word not in verdict


def test_halves_are_stratified_disjoint_and_complete():
    data = samples(101, seed=3)
    both = halves(data, "", 0)
    assert len(both.fit) + len(both.held_out) == 101
    for label in range(CLASSES):
        fit, held = ((part.labels == label).sum().item() for part in (both.fit, both.held_out))
        assert 0 <= fit - held <= 1
    rows = torch.cat([both.fit.inputs, both.held_out.inputs]).flatten(1)
    assert len(torch.unique(rows, dim=0)) == 101


def test_re_estimation_changes_only_the_statistics(cnn, sets):
    network = copy.deepcopy(cnn).train()
    network[1].momentum = 0.3
    before = snapshot(network)
    assert reestimate_batch_norms_(network, sets[1].inputs) == 2
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {
        f"{at}.{kind}" for at in (1, 4) for kind in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert "4.running_mean" in changed
    assert network[1].momentum == 0.3
    assert all(module.training for module in network.modules())


X, Y = samples(40, seed=4).inputs, samples(40, seed=4).labels


def only(*classes: int) -> tuple[Tensor, Tensor]:
    chosen = torch.isin(Y, torch.tensor(classes))
    return X[chosen], Y[chosen]


@pytest.mark.parametrize(
    ("gone", "kept", "message"),
    [
        ([], only(0, 1), "forget_data holds no sample"),
        (only(2), iter(()), "retain_data holds no sample"),
        (only(2), only(0, 2), "classes \\[2\\] occur in forget_data and in retain_data"),
        (X, only(0), "forget_data is a Tensor"),
        (7, only(0), "forget_data is a int"),
        ([X], only(0), "batch 0 of forget_data is no pair"),
        ([only(2), (X, Y.tolist())], only(0), "batch 1 of forget_data is no pair .*'list'"),
        ((X, Y.float()), only(0), "labels of dtype torch.float32"),
        ((X, Y - 9), only(0), "some below 0"),
        ((X, Y[:-1]), only(0), r"inputs \(40, 1, 6, 6\) and labels \(39,\)"),
        ((X, Y[:, None]), only(0), r"labels \(40, 1\)"),
        ((X * torch.nan, Y), only(0), "forget_data holds 1440 values that are NaN"),
        ([(X[:2], Y[:2]), (X[:2, :, 1:], Y[:2])], only(0), "samples of shapes"),
        ((X[..., 1:], torch.full((40,), 3)), only(0), r"forget_data holds \(1, 6, 5\)"),
        (tuple(part[:1] for part in only(2)), only(0), "1 sample\\(s\\) of class 2"),
        (only(2), (X, torch.full((40,), 4)), "retain_data has class 4, the network 4 logits"),
        ((X[..., 0], Y * 0), (X[..., 0], Y * 0 + 1), "Sequential cannot run on inputs"),
    ],
)
def test_data_that_cannot_be_right_is_refused(cnn, gone, kept, message):
    before = snapshot(cnn)
    with pytest.raises(ArgumentError, match=message) as caught:
        forget(cnn, gone, kept)
    assert caught.value.why
    assert caught.value.fix
    assert same(cnn, before)


def test_one_object_for_both_sets_is_refused(cnn):
    batches = iter([(X, Y)])
    with pytest.raises(ArgumentError, match="the same object"):
        forget(cnn, batches, batches)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"method": "gradient"}, UnknownChoiceError),
        ({"strength": -1}, ArgumentError),
        ({"strength": float("nan")}, ArgumentError),
        ({"method": "fidelity", "strength": 0}, ArgumentError),
        ({"method": "fidelity", "strength": 1.5}, ArgumentError),
        ({"layers": ["conv"]}, UnknownChoiceError),
    ],
)
def test_arguments_out_of_range_are_refused(cnn, sets, options, error):
    with pytest.raises(error) as caught:
        run(cnn, sets, **options)
    assert caught.value.fix


class Broken(nn.Module):
    def __init__(self, answer: str) -> None:
        super().__init__()
        self.cnn = small_cnn()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        logits = self.cnn(x)
        return {"dict": {"logits": logits}, "map": logits[..., None], "nan": logits / 0}[self.answer]


class NoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(36, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


def with_history() -> nn.Module:
    network = small_cnn()
    network.extra = network[8].weight * 2  # a tensor with a history, which PyTorch does not copy
    return network


def with_nan() -> nn.Module:
    network = small_cnn()
    network[3].weight.data[0, 0] = torch.nan
    return network


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Broken("dict"), PruningError, "gives dict for 2 samples"),
        (lambda: Broken("map"), PruningError, r"gives \(2, 4, 1\)"),
        (lambda: Broken("nan"), PruningError, "NaN or Inf"),
        (NoLayers, PruningError, "ran no nn.Linear"),
        (with_history, PruningError, "cannot be copied"),
        (with_nan, WeightsError, "3.weight"),
        (nn.ReLU, ArgumentError, "without parameters"),
        (lambda: torch.relu, ArgumentError, "builtin_function_or_method"),
    ],
)
def test_networks_that_cannot_be_edited_are_refused(build, error, message):
    torch.manual_seed(0)
    with pytest.raises(error, match=message) as caught:
        forget(build(), only(2), only(0, 1, 3))
    assert isinstance(caught.value, SdkError)
    assert caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize(
    ("classes", "message"),
    [([9], "class 9 does not occur"), ([], "something must"), (range(4), "something must")],
)
def test_dividing_by_class_refuses_what_divides_nothing(classes, message):
    with pytest.raises(ArgumentError, match=message):
        split_by_class((X, Y), classes)


def test_dividing_by_class_keeps_every_sample():
    gone, kept = split_by_class([(X[:10], Y[:10]), (X[10:], Y[10:])], [1])
    assert gone.classes == (1,)
    assert 1 not in kept.classes
    assert len(gone) + len(kept) == len(read((X, Y), "data"))
