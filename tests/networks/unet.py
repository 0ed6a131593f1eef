"""Convolutional U-Net: GroupNorm, concatenated skips, a nearest and a transposed-convolution upsample."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.cases import Case, Inputs, noise, seeded


class ResBlock(nn.Module):
    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, channels), nn.GroupNorm(4, out)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.time = nn.Linear(time, out)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(cond)[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class UNet(nn.Module):
    """(B, 3, H, W) noisy image and (B, 8) condition to (B, 3, H, W); H and W multiples of 4."""

    def __init__(self, width: int = 16, cond: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down1, self.down2 = ResBlock(width, width, cond), ResBlock(width, width * 2, cond)
        self.shrink1 = nn.Conv2d(width, width, 3, 2, 1)
        self.shrink2 = nn.AvgPool2d(2)
        self.middle = ResBlock(width * 2, width * 2, cond)
        self.grow2 = nn.ConvTranspose2d(width * 2, width * 2, 4, 2, 1)
        self.up2 = ResBlock(width * 4, width, cond)
        self.grow1 = nn.Conv2d(width, width, 3, padding=1)
        self.up1 = ResBlock(width * 2, width, cond)
        self.norm, self.out = nn.GroupNorm(4, width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        skip1 = self.down1(self.stem(x), cond)
        skip2 = self.down2(self.shrink1(skip1), cond)
        h = self.middle(self.shrink2(skip2), cond)
        h = self.up2(torch.cat((self.grow2(h), skip2), dim=1), cond)
        h = self.grow1(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.up1(torch.cat((h, skip1), dim=1), cond)
        return self.out(F.silu(self.norm(h)))


def _inputs(batch: int, rows: int, cols: int) -> Inputs:
    return Inputs((noise(batch, 3, 4 * rows, 4 * cols), noise(batch, 8, seed=1)))


_BATCH = torch.export.Dim("batch", min=1, max=4)
_ROWS, _COLS = torch.export.Dim("rows", min=2, max=16), torch.export.Dim("cols", min=2, max=16)

CASES = (
    Case("unet", seeded(UNet), lambda: _inputs(1, 6, 8)),
    Case(
        "unet_dynamic",
        seeded(UNet),
        _inputs,
        sample={"batch": 2, "rows": 4, "cols": 6},
        dynamic_shapes={"x": {0: _BATCH, 2: 4 * _ROWS, 3: 4 * _COLS}, "cond": {0: _BATCH}},
        sizes=(
            {"batch": 1, "rows": 2, "cols": 2},
            {"batch": 3, "rows": 5, "cols": 3},
            {"batch": 4, "rows": 16, "cols": 16},
        ),
    ),
)
