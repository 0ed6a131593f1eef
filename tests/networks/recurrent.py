"""Recurrent networks: a two-layer GRU and a bidirectional LSTM."""

import torch
from torch import Tensor, nn

from networks.cases import Case, Inputs, noise, seeded


class GruTagger(nn.Module):
    """(B, L, 12) features and (2, B, 24) state to (B, L, 5) tags and the next state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(12, 24, num_layers=2, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden, state = self.gru(features, state)
        return self.head(hidden), state


class LstmEncoder(nn.Module):
    """(B, L, 12) features to (B, L, 48) hidden and the (2, B, 24) last states (h, c)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.lstm = nn.LSTM(12, 24, batch_first=True, bidirectional=True)

    def forward(self, features: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.lstm(self.norm(features))


def _gru_inputs(batch: int, length: int = 7) -> Inputs:
    return Inputs((noise(batch, length, 12), noise(2, batch, 24, seed=1)))


_BATCH = torch.export.Dim("batch", min=1, max=8)

CASES = (
    Case("gru", seeded(GruTagger), lambda: _gru_inputs(2)),
    Case(
        "gru_batch",
        seeded(GruTagger),
        _gru_inputs,
        sample={"batch": 3},
        dynamic_shapes={"features": {0: _BATCH}, "state": {1: _BATCH}},
        sizes=({"batch": 1}, {"batch": 4}, {"batch": 8}),
    ),
    Case("lstm", seeded(LstmEncoder), lambda: Inputs((noise(2, 9, 12),))),
)
