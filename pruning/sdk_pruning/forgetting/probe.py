"""A linear probe: how much of a class can still be read off features, whatever the network itself answers.

Multinomial logistic regression on standardised features, classes weighted equally, trained by L-BFGS from
zero: no randomness, and strong where ridge regression on one-hot targets lets classes mask each other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's spelling

_DECAY = 1e-3  # of the weights; keeps separable classes from growing without end
_STEPS = 100


@dataclass(frozen=True)
class Probe:
    """A linear classifier.

    Attributes:
        mean: of the features, (D,).
        scale: one over their standard deviation, 0 where they never change, (D,).
        weight: (classes, D).
        bias: (classes,).
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(B, D) to (B, classes)."""
        return (features - self.mean) * self.scale @ self.weight.T + self.bias


def train_probe(features: Tensor, labels: Tensor, classes: int) -> Probe:
    """Fits the probe.

    Args:
        features: float64 (B, D).
        labels: int64 (B,), below `classes`.
        classes: how many logits.
    """
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    scale = torch.where(deviation > 1e-6 * deviation.max(), 1 / deviation, 0.0)
    x = (features - mean) * scale
    counts = labels.bincount(minlength=classes).double()
    balance = torch.where(counts > 0, 1 / counts, 0.0)  # classes that do not occur weigh nothing
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, labels, balance) + _DECAY * weight.square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call] # torch does not type it
        return float(value.detach())

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call] # torch does not type it
    return Probe(mean, scale, weight.detach(), bias.detach())
