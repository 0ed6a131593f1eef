"""A residual CNN, a vision transformer, a MobileNet-like network: images [B, 1, 8, 8], logits [B, 10]."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
Network = TypeVar("Network", bound=nn.Module)


def _conv_norm(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class DigitsCnn(nn.Module):
    """Four prunable groups: the residual one (stem and `block2`), `block1`, `down`, `last`."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = _conv_norm(1, width)
        self.block1 = _conv_norm(width, width)
        self.block2 = _conv_norm(width, width)
        self.down = _conv_norm(width, 2 * width, stride=2)
        self.last = _conv_norm(2 * width, 2 * width)
        self.classifier = nn.Linear(2 * width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 8, 8) to (B, 10) logits."""
        x = functional.relu(self.stem(image))
        x = functional.relu(x + self.block2(functional.relu(self.block1(x))))
        x = functional.relu(self.last(functional.relu(self.down(x))))  # (B, 2·width, 4, 4)
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


class SelfAttention(nn.Module):
    """Heads by `unflatten`, one projection for query, key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) to (B, L, C)."""
        # three of (B, heads, L, C/heads)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected


class TransformerBlock(nn.Module):
    """Pre-norm: attention, then a feed-forward layer four times as wide."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) to (B, L, C)."""
        x = x + self.attention(self.norm1(x))
        fed: Tensor = self.fc2(functional.gelu(self.fc1(self.norm2(x))))
        return x + fed


class DigitsVit(nn.Module):
    """16 patches of 4 x 4 pixels, half overlapping; learned positions; the mean over patches in the end."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(1, width, 4, 2, 1)
        # A tenth of this, and the network is a quarter as good: it has to learn first where things are.
        self.positions = nn.Parameter(torch.randn(1, 16, width) * 0.5)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 8, 8) to (B, 10) logits."""
        x = self.patch_embed(image).flatten(2).transpose(1, 2) + self.positions  # (B, 16, C)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(self.norm(x).mean(1))
        return logits


class SqueezeExcite(nn.Module):
    """Scales channels by what their means say."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        squeezed = functional.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1)))  # (B, reduced, 1, 1)
        scale: Tensor = torch.sigmoid(self.expand(squeezed))
        return x * scale


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze and excite, project (MobileNetV3's block)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, expand: int = 4) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expand = _conv_norm(inputs, hidden, 1)
        self.depthwise = _conv_norm(hidden, hidden, stride=stride, groups=hidden)
        self.excite = SqueezeExcite(hidden, hidden // 8)
        self.project = _conv_norm(hidden, outputs, 1)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = functional.hardswish(self.depthwise(functional.hardswish(self.expand(x))))
        projected: Tensor = self.project(self.excite(y))
        return x + projected if self.is_residual else projected


class DigitsMobile(nn.Module):
    """Stem, three inverted residuals (the middle one halves the image), a wide 1 x 1 convolution."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = _conv_norm(1, width)
        self.blocks = nn.Sequential(
            InvertedResidual(width, width),
            InvertedResidual(width, 2 * width, stride=2),
            InvertedResidual(2 * width, 2 * width),
        )
        self.head = _conv_norm(2 * width, 4 * width, 1)
        self.classifier = nn.Linear(4 * width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 8, 8) to (B, 10) logits."""
        x = functional.hardswish(self.head(self.blocks(functional.hardswish(self.stem(image)))))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def digits_cnn(width: int = 32, *, seed: int = 0) -> DigitsCnn:
    """The residual CNN, untrained."""
    return _seeded(lambda: DigitsCnn(width), seed)


def digits_vit(width: int = 48, heads: int = 4, depth: int = 2, *, seed: int = 0) -> DigitsVit:
    """The vision transformer, untrained."""
    return _seeded(lambda: DigitsVit(width, heads, depth), seed)


def digits_mobile(width: int = 16, *, seed: int = 0) -> DigitsMobile:
    """The MobileNet-like network, untrained."""
    return _seeded(lambda: DigitsMobile(width), seed)


def _seeded(build: Callable[[], Network], seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()
