import pytest
import torch
from torch import nn

from sdk_pruning.calls import Call
from sdk_pruning.priors import Priors, mismatch, training_variance, weight_of
from sdk_pruning.propagation import propagate, state_of
from sdk_pruning.rules.table import RULES
from sdk_pruning.tracing import trace


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x))
        x = torch.relu(x + self.norm2(self.second(torch.relu(x))))
        return self.last(x.mean((2, 3)))


def trained_like(seed: int = 0) -> nn.Module:
    """Statistics that are those of standard normal inputs."""
    torch.manual_seed(seed)
    net = Net()
    for norm in (net.norm, net.norm2):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
    net.train()
    for _ in range(60):
        net(torch.randn(64, 3, 4, 4))
    return net.eval()


def test_variances_come_from_batch_norms_alone() -> None:
    net = trained_like()
    call = Call((torch.zeros(2, 3, 4, 4),))
    traced = trace(net, call)
    findings = propagate(traced, net, call, RULES)
    state = {name: tensor.detach() for name, tensor in state_of(net).items()}
    features = {use.weight: use.features for use in findings.uses}
    found = training_variance(traced, findings.labels, state, features["second.weight"])
    with torch.no_grad():
        hidden = torch.relu(net.norm(net.first(torch.randn(512, 3, 4, 4))))
    assert found == pytest.approx(hidden.double().transpose(0, 1).flatten(1).var(1), rel=0.35)
    assert training_variance(traced, findings.labels, state, features["first.weight"]) is None  # the input
    assert training_variance(traced, findings.labels, state, features["last.weight"]) is None  # pooled


def test_mismatch_is_near_zero_for_data_like_the_training_data_only() -> None:
    net = trained_like()
    call = Call((torch.zeros(2, 3, 4, 4),))
    traced, state = trace(net, call), state_of(net)
    like = mismatch(traced, state, [Call((torch.randn(256, 3, 4, 4),))])
    unlike = mismatch(traced, state, [Call((torch.randn(256, 3, 4, 4) * 0.2 + 1,))])
    assert like < 0.02 < 0.2 < unlike
    assert weight_of(0.0) == 0
    assert weight_of(9.0) == 1


def test_a_network_without_batch_norms_has_no_mismatch() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    call = Call((torch.zeros(2, 3),))
    assert mismatch(trace(net, call), state_of(net), [call]) == 0


def test_where_nothing_is_missing_priors_say_nothing() -> None:
    net = trained_like()
    call = Call((torch.zeros(2, 3, 4, 4),))
    traced = trace(net, call)
    findings = propagate(traced, net, call, RULES)
    state = {name: tensor.detach() for name, tensor in state_of(net).items()}
    use = next(use for use in findings.uses if use.weight == "second.weight")
    assert Priors(traced, findings.labels, state, 0.0).of(use, 1) is None
    held = Priors(traced, findings.labels, state, 0.5).of(use, 2)
    assert held is not None
    assert held.shape == (16,)
    assert held[0] == held[1]
