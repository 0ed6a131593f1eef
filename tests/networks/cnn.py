"""Residual CNN: depthwise convolutions, batch norm, squeeze-and-excitation, SiLU (EfficientNet's block)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.cases import Case, Inputs, noise, seeded


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.adaptive_avg_pool2d(x, 1)  # (B, C, 1, 1)
        return x * torch.sigmoid(self.expand(F.silu(self.reduce(scale))))


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, *, expand: int = 4, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        hidden = channels * expand
        self.expand = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.SiLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.SiLU(),
        )
        self.excite = SqueezeExcite(hidden, max(4, channels // 4))
        self.project = nn.Sequential(nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out))
        self.is_residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.is_residual else y


class ResidualCnn(nn.Module):
    """(B, 3, H, W) image to (B, classes) logits; H and W multiples of 8."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.Hardswish(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.blocks = nn.Sequential(
            InvertedResidual(width, width),
            InvertedResidual(width, width * 2, kernel=5, stride=2),
            InvertedResidual(width * 2, width * 2, kernel=5),
        )
        self.head = nn.Sequential(nn.Conv2d(width * 2, width * 4, 1), nn.ReLU6())
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(width * 4, classes))

    def forward(self, image: Tensor) -> Tensor:
        features = self.head(self.blocks(self.stem(image)))
        return self.classifier(features.mean((2, 3)))


def _inputs(batch: int) -> Inputs:
    return Inputs((noise(batch, 3, 32, 40),))


CASES = (
    Case("cnn", seeded(ResidualCnn), lambda: _inputs(1)),
    Case(
        "cnn_batch",
        seeded(ResidualCnn),
        _inputs,
        sample={"batch": 2},
        dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=8)}},
        sizes=({"batch": 1}, {"batch": 5}, {"batch": 8}),
    ),
)
