"""ATConv: a depthwise 3×3 convolution whose kernel is made from the sample itself (AttNet 2025).

A grouped convolution with B·C groups is static in the batch on every target, so the kernel is applied as nine
shifted multiply-adds, and the pooling onto 3×3 is a constant matrix.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.cases import Case, Inputs, noise, seeded

_SIDE = 14


def pooling_matrix(size: int, bins: int) -> Tensor:
    """(bins, size) rows of adaptive average pooling: bin i averages [⌊i·size/bins⌋, ⌈(i+1)·size/bins⌉)."""
    matrix = torch.zeros(bins, size)
    for i in range(bins):
        start, end = i * size // bins, -(-(i + 1) * size // bins)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


class AtConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value, self.key = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.kernel = nn.Linear(9, 9)
        self.difference = nn.Parameter(torch.randn(channels, 1))
        self.out = nn.Conv2d(channels, channels, 1)
        self.register_buffer("pool", pooling_matrix(_SIDE, 3), persistent=False)

    def kernels(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 9) kernels, one a sample and channel."""
        pooled = self.pool @ self.key(x) @ self.pool.t()  # (B, C, 3, 3)
        taps = self.kernel(F.gelu(pooled.flatten(2)))
        return taps - torch.sigmoid(self.difference) * taps.mean(-1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.kernels(x)
        padded = F.pad(self.value(x), (1, 1, 1, 1))
        mixed = torch.zeros_like(x)
        for i in range(9):
            row, col = divmod(i, 3)
            shifted = padded[:, :, row : row + _SIDE, col : col + _SIDE]
            mixed = mixed + shifted * taps[:, :, i, None, None]
        return self.out(mixed)


class AttNet(nn.Module):
    """(B, 3, 28, 28) image to (B, classes) logits."""

    def __init__(self, width: int = 24, depth: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2 * depth))
        self.mixers = nn.ModuleList(AtConv(width) for _ in range(depth))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))
            for _ in range(depth)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for i, (mixer, mlp) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            x = x + mixer(self.norms[2 * i](x))
            x = x + mlp(self.norms[2 * i + 1](x))
        return self.head(x.mean((2, 3)))


CASES = (
    Case(
        "atconv",
        seeded(AttNet),
        lambda batch: Inputs((noise(batch, 3, 2 * _SIDE, 2 * _SIDE),)),
        sample={"batch": 2},
        dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=4)}},
        sizes=({"batch": 1}, {"batch": 3}, {"batch": 4}),
    ),
)
