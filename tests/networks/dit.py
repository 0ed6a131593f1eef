"""Diffusion transformer with adaLN-zero and a timestep embedding (Peebles & Xie 2023).

The adaLN projections are drawn, not zero: at the paper's initialisation every block is the identity and
no fault in it would show.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.attention import Mlp, SelfAttention
from networks.cases import Case, Inputs, integers, noise, seeded


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift, with (B, C) modulation over (B, N, C) tokens."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class TimestepEmbedding(nn.Module):
    """(B,) times to (B, C): sinusoids (cos then sin, period up to 10000), then an MLP."""

    def __init__(self, width: int, frequencies: int = 64) -> None:
        super().__init__()
        half = frequencies // 2
        table = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("table", table, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.table
        return self.mlp(torch.cat((angle.cos(), angle.sin()), dim=-1))


class DitBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width)
        self.ada = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.ada(F.silu(cond)).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attention(modulate(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class Dit(nn.Module):
    """(B, 4, 16, 16) latents, (B,) times in [0, 1000), (B,) labels to (B, 8, 16, 16): ε and Σ."""

    def __init__(
        self, width: int = 64, heads: int = 4, depth: int = 2, patch: int = 2, classes: int = 10
    ) -> None:
        super().__init__()
        self.patch = patch
        self.tokens = 16 // patch
        self.x_embed = nn.Conv2d(4, width, patch, patch)
        self.register_buffer("pos_embed", torch.randn(1, self.tokens**2, width) * 0.5)
        self.t_embed = TimestepEmbedding(width)
        self.y_embed = nn.Embedding(classes + 1, width)  # the last row is the null class of guidance
        self.blocks = nn.ModuleList(DitBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.ada = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, patch * patch * 8)
        for module in (*(block.ada for block in self.blocks), self.ada):
            nn.init.normal_(module.weight, std=0.1)
            nn.init.normal_(module.bias, std=0.3)

    def unpatchify(self, x: Tensor) -> Tensor:
        """(B, h·w, p·p·8) to (B, 8, h·p, w·p)."""
        x = x.reshape(-1, self.tokens, self.tokens, self.patch, self.patch, 8)
        return torch.einsum("nhwpqc->nchpwq", x).reshape(-1, 8, 16, 16)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        h = self.x_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        cond = self.t_embed(t) + self.y_embed(y)
        for block in self.blocks:
            h = block(h, cond)
        shift, scale = self.ada(F.silu(cond)).chunk(2, dim=1)
        return self.unpatchify(self.out(modulate(self.norm(h), shift, scale)))


def _inputs(batch: int) -> Inputs:
    times = torch.linspace(1.0, 999.0, batch)
    return Inputs((noise(batch, 4, 16, 16), times, integers(11, batch)))


_BATCH = torch.export.Dim("batch", min=1, max=8)

CASES = (
    Case(
        "dit",
        seeded(Dit),
        _inputs,
        sample={"batch": 2},
        dynamic_shapes={"x": {0: _BATCH}, "t": {0: _BATCH}, "y": {0: _BATCH}},
        sizes=({"batch": 1}, {"batch": 4}, {"batch": 8}),
    ),
)
