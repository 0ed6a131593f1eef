"""Random networks from a small grammar."""

from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from pruned_networks.attention import Separate, Timm
from pruned_networks.case import settled


class Plain(nn.Module):
    """Convolution, norm, activation."""

    def __init__(self, channels: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (1, 3)[option % 2], padding=option % 2, bias=option > 1)
        self.norm = (nn.BatchNorm2d(channels), nn.GroupNorm(2, channels), nn.Identity())[option % 3]

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two convolutions, the second grouped or not, around a shortcut."""

    def __init__(self, channels: int, option: int) -> None:
        super().__init__()
        inner = channels * (1 + option % 2)
        self.first, self.norm = nn.Conv2d(channels, inner, 3, padding=1), nn.BatchNorm2d(inner)
        self.second = nn.Conv2d(inner, channels, 3, padding=1, groups=(1, 2, channels)[option % 3])

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(F.relu(self.norm(self.first(x))))).relu()


class Depthwise(nn.Module):
    """A depthwise convolution, with a squeeze-excite behind it or not."""

    def __init__(self, channels: int, option: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.point = nn.Conv2d(channels, channels, 1)
        self.squeeze = nn.Conv2d(channels, 4, 1) if option % 2 else None
        self.excite = nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.depthwise(x))
        if self.squeeze is not None:
            x = x * self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.point(x)


class Branches(nn.Module):
    """Branches side by side, merged again; the input among them or not."""

    def __init__(self, channels: int, option: int) -> None:
        super().__init__()
        half = channels // 2
        self.branches = nn.ModuleList(nn.Conv2d(channels, half, 1) for _ in range(1 + option % 2))
        self.shortcut = option > 1
        width = half * (1 + option % 2) + channels * self.shortcut
        self.norm, self.merge = nn.BatchNorm2d(width), nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x).tanh() for branch in self.branches] + [x] * self.shortcut
        return self.merge(self.norm(torch.cat(parts, 1)))


class Gate(nn.Module):
    """Half of the channels gate the other half."""

    def __init__(self, channels: int, option: int) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(channels, channels, 1)
        self.option = option

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        if self.option % 2:
            value, gate = y.chunk(2, 1)
        else:
            value, gate = y[:, ::2], y[:, 1::2]
        return x + self.down(value * gate.sigmoid())


class Attention(nn.Module):
    """Positions attend to each other."""

    def __init__(self, channels: int, option: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels) if option > 1 else nn.Identity()
        self.attn = (Timm, Separate)[option % 2](channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attn(self.norm(x.flatten(2).transpose(1, 2)))
        return x + y.transpose(1, 2).unflatten(-1, x.shape[2:])


BLOCKS: tuple[Callable[[int, int], nn.Module], ...] = (Plain, Residual, Depthwise, Branches, Gate, Attention)


class Net(nn.Module):
    """A stem, blocks with changes of width between them, a head."""

    def __init__(self, blocks: Sequence[tuple[int, int]], widths: Sequence[int], *, flatten: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2, widths[0], 3, padding=1)]
        for number, (kind, option) in enumerate(blocks):
            layers.append(BLOCKS[kind](widths[number], option))
            if widths[number + 1] != widths[number]:
                layers.append(nn.Conv2d(widths[number], widths[number + 1], 1))
        self.blocks, self.flatten = nn.Sequential(*layers), flatten
        self.fc1, self.fc2 = nn.Linear(widths[len(blocks)] * (25 if flatten else 1), 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return self.fc2(F.relu(self.fc1(x.flatten(1) if self.flatten else x.mean((2, 3)))))


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """A network that reads (batch, 2, 5, 5)."""
    blocks = draw(
        st.lists(st.tuples(st.integers(0, len(BLOCKS) - 1), st.integers(0, 3)), min_size=1, max_size=4)
    )
    widths = draw(st.lists(st.sampled_from((4, 8, 12)), min_size=len(blocks) + 1, max_size=len(blocks) + 1))
    flatten = draw(st.booleans())
    return settled(lambda: Net(blocks, widths, flatten=flatten))()
