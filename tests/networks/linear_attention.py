"""ReLU linear attention with a 5×5 depthwise convolution on V (LiT 2025; Han et al. 2023).

The keys and values are averaged, not summed, over tokens (divided by √N on each side): the numbers stay small
enough for fp16 at any resolution, and numerator and normaliser keep their ratio.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.attention import Mlp, merge_heads, split_heads
from networks.cases import Case, Inputs, noise, seeded


class LinearAttention(nn.Module):
    """(B, h·w, C) tokens of an h×w grid to the same shape."""

    def __init__(self, width: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.heads, self.grid = heads, grid
        self.qkv = nn.Linear(width, 3 * width)
        head = width // heads
        self.depthwise = nn.Conv2d(head, head, 5, padding=2, groups=head)  # shared by the heads
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = F.relu(q), F.relu(k)
        root = k.shape[-2] ** -0.5
        context = (k * root).transpose(-1, -2) @ (v * root)  # (B, H, D, D)
        norm = q @ k.mean(dim=-2, keepdim=True).transpose(-1, -2)  # (B, H, N, 1)
        return self.out(merge_heads(q @ context / (norm + 1e-6) + self.local(v)))

    def local(self, v: Tensor) -> Tensor:
        """The depthwise branch: (B, H, N, D) to the same shape."""
        images = v.transpose(-1, -2).flatten(0, 1).unflatten(-1, self.grid)  # (B·H, D, h, w)
        return self.depthwise(images).flatten(2).transpose(-1, -2).unflatten(0, (-1, self.heads))


class LitBlocks(nn.Module):
    """(B, 4, 12, 8) latents to the same shape."""

    def __init__(self, width: int = 64, heads: int = 2, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Conv2d(4, width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2 * depth))
        self.attention = nn.ModuleList(LinearAttention(width, heads, (12, 8)) for _ in range(depth))
        self.mlps = nn.ModuleList(Mlp(width) for _ in range(depth))
        self.out = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).flatten(2).transpose(1, 2)
        for i, (attention, mlp) in enumerate(zip(self.attention, self.mlps, strict=True)):
            h = h + attention(self.norms[2 * i](h))
            h = h + mlp(self.norms[2 * i + 1](h))
        return self.out(h.transpose(1, 2).unflatten(-1, (12, 8)))


CASES = (
    Case(
        "linear_attention",
        seeded(LitBlocks),
        lambda batch: Inputs((noise(batch, 4, 12, 8),)),
        sample={"batch": 2},
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=4)}},
        sizes=({"batch": 1}, {"batch": 3}, {"batch": 4}),
    ),
)
