"""Selective state space (Mamba) with the recurrence as a log-depth scan: no loop op, no sequential graph.

h[t] = a[t]·h[t-1] + b[t] by Hillis & Steele (1986): after step d each element holds the composition of
the last 2d elements.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.cases import Case, Inputs, noise, seeded

_LENGTH = 24


def linear_scan(a: Tensor, b: Tensor) -> Tensor:
    """(B, L, …) coefficients to all states h of h[t] = a[t]·h[t-1] + b[t], h[-1] = 0; ⌈log2 L⌉ steps."""
    step, length = 1, a.shape[1]
    while step < length:
        before_a = torch.cat((torch.ones_like(a[:, :step]), a[:, : length - step]), dim=1)
        before_b = torch.cat((torch.zeros_like(b[:, :step]), b[:, : length - step]), dim=1)
        a, b = a * before_a, a * before_b + b
        step *= 2
    return b


class SelectiveScan(nn.Module):
    """(B, 24, 32) to the same shape."""

    def __init__(self, width: int = 32, state: int = 8, rank: int = 4, kernel: int = 4) -> None:
        super().__init__()
        self.state, self.rank, self.kernel = state, rank, kernel
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 2 * width)
        self.conv = nn.Conv1d(width, width, kernel, groups=width)
        self.select = nn.Linear(width, rank + 2 * state, bias=False)
        self.delta = nn.Linear(rank, width)
        self.a_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.inner(self.norm(x)).chunk(2, dim=-1)
        u = F.silu(self.conv(F.pad(u.transpose(1, 2), (self.kernel - 1, 0))).transpose(1, 2))
        rank, b, c = self.select(u).split((self.rank, self.state, self.state), dim=-1)
        delta = F.softplus(self.delta(rank)).unsqueeze(-1)  # (B, L, C, 1)
        decay = torch.exp(-delta * self.a_log.exp())  # (B, L, C, state)
        states = linear_scan(decay, delta * b.unsqueeze(2) * u.unsqueeze(-1))
        y = (states * c.unsqueeze(2)).sum(-1) + u * self.skip
        return x + self.out(y * F.silu(gate))


CASES = (
    Case(
        "selective_scan",
        seeded(SelectiveScan),
        lambda batch: Inputs((noise(batch, _LENGTH, 32),)),
        sample={"batch": 2},
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=4)}},
        sizes=({"batch": 1}, {"batch": 3}, {"batch": 4}),
    ),
)
