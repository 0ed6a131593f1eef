"""Attention with 2-D rotary positions in real arithmetic: cos and sin tables (DDT, LightningDiT)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.attention import Mlp, merge_heads, split_heads
from networks.cases import Case, Inputs, noise, seeded


def rope_2d(rows: int, cols: int, head: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """(rows·cols, head) cos and sin: half of the pairs turns with the row, half with the column."""
    frequencies = base ** (-torch.arange(0, head // 2, 2, dtype=torch.float32) / (head // 2))
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    angles = torch.cat([axis.reshape(-1, 1) * frequencies for axis in (row, col)], dim=-1)
    angles = angles.repeat_interleave(2, dim=-1)  # (N, head)
    return angles.cos(), angles.sin()


def rotate_pairs(x: Tensor) -> Tensor:
    """(…, 2i, 2i+1) to (…, -x[2i+1], x[2i])."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((-odd, even), dim=-1).flatten(-2)


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class RopeBlock(nn.Module):
    def __init__(self, width: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.q_norm, self.k_norm = RmsNorm(width // heads), RmsNorm(width // heads)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = Mlp(width)
        cos, sin = rope_2d(*grid, width // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        return x * self.cos + rotate_pairs(x) * self.sin

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        q, k = self.turn(self.q_norm(q)), self.turn(self.k_norm(k))
        x = x + self.out(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return x + self.mlp(self.norm2(x))


class RopeStack(nn.Module):
    """(B, 6·8, 64) tokens of a 6×8 grid to the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RopeBlock(64, 4, (6, 8)) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


CASES = (
    Case(
        "rope",
        seeded(RopeStack),
        lambda batch: Inputs((noise(batch, 48, 64),)),
        sample={"batch": 2},
        dynamic_shapes={"tokens": {0: torch.export.Dim("batch", min=1, max=8)}},
        sizes=({"batch": 1}, {"batch": 3}, {"batch": 8}),
    ),
)
