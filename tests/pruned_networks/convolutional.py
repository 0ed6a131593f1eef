"""Convolutional networks: residuals, groups, concatenation, shuffles, resizing."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.cases import noise
from pruned_networks.case import Case, case

IMAGE = noise(2, 3, 12, 12)


def conv_bn(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options), nn.BatchNorm2d(outputs)
    )


class Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_bn(inputs, outputs, stride=stride), conv_bn(outputs, outputs)
        self.down = conv_bn(inputs, outputs, 1, stride=stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x), inplace=True)) + self.down(x), inplace=True)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int, groups: int = 1) -> None:
        super().__init__()
        self.reduce = conv_bn(inputs, width, 1)
        self.spatial = conv_bn(width, width, groups=groups)
        self.expand = conv_bn(width, outputs, 1)
        self.down = conv_bn(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.spatial(self.reduce(x).relu()).relu()
        return (self.expand(out) + self.down(x)).relu()


def resnet_basic() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), nn.ReLU(), nn.MaxPool2d(2), Basic(8, 8), Basic(8, 12, 2), Head(12))


def resnet_bottleneck() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), Bottleneck(8, 6, 16), Bottleneck(16, 6, 16), Head(16))


def resnext() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), Bottleneck(8, 12, 16, 4), Bottleneck(16, 12, 16, 4), Head(16))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(scale))))


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, hidden: int, act: type[nn.Module], *, squeeze: bool = False) -> None:
        super().__init__()
        self.expand, self.act = conv_bn(channels, hidden, 1), act()
        self.depthwise = conv_bn(hidden, hidden, groups=hidden)
        self.squeeze = SqueezeExcite(hidden, 4) if squeeze else nn.Identity()
        self.project = conv_bn(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.squeeze(self.act(self.depthwise(self.act(self.expand(x))))))


def mobilenet_v2() -> nn.Module:
    blocks = [InvertedResidual(8, 16, nn.ReLU6) for _ in range(2)]
    return nn.Sequential(conv_bn(3, 8), *blocks, Head(8))


def mobilenet_v3() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), InvertedResidual(8, 16, nn.Hardswish, squeeze=True), Head(8))


def efficientnet() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), InvertedResidual(8, 24, nn.SiLU, squeeze=True), Head(8))


class Dense(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(Dense(8 + 4 * i, 4) for i in range(3))
        self.norm, self.head = nn.BatchNorm2d(20), Head(20)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(features))
        return self.head(self.norm(torch.cat(features, 1)).relu())


class Shuffle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.expand, self.project = conv_bn(half, half, 1), conv_bn(half, half, 1)
        self.depthwise = conv_bn(half, half, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        right = self.project(self.depthwise(self.expand(right).relu())).relu()
        out = torch.cat((left, right), 1)
        B, C, H, W = out.shape
        return out.view(B, 2, C // 2, H, W).transpose(1, 2).contiguous().view(B, C, H, W)


def shufflenet() -> nn.Module:
    return nn.Sequential(conv_bn(3, 16), Shuffle(16), Shuffle(16), nn.Conv2d(16, 12, 1), nn.ReLU(), Head(12))


class Ghost(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.primary, self.cheap = conv_bn(inputs, half, 1), conv_bn(half, half, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x).relu()
        return torch.cat((primary, self.cheap(primary).relu()), 1)


def ghostnet() -> nn.Module:
    return nn.Sequential(Ghost(3, 12), Ghost(12, 16), Head(16))


class C2f(nn.Module):
    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv_bn(inputs, 2 * hidden, 1), conv_bn(4 * hidden, outputs, 1)
        self.m = nn.ModuleList(
            nn.Sequential(conv_bn(hidden, hidden), nn.SiLU(), conv_bn(hidden, hidden)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = list(F.silu(self.cv1(x)).chunk(2, 1))
        for block in self.m:
            y.append(block(y[-1]) + y[-1])
        return F.silu(self.cv2(torch.cat(y, 1)))


def yolo_c2f() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), nn.SiLU(), C2f(8, 12, 6), Head(12))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc1 = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.SiLU())
        self.enc2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.SiLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.dec = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enc1(x)
        return self.out(self.dec(torch.cat((self.up(self.enc2(skip)), skip), 1)))


class UNetResize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2 = conv_bn(3, 8), conv_bn(8, 12, stride=2)
        self.dec, self.out = conv_bn(20, 8), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enc1(x).relu()
        deep = F.interpolate(self.enc2(skip).relu(), scale_factor=2, mode="nearest")
        return self.out(self.dec(torch.cat((deep, skip), 1)).relu())


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.pw1, self.pw2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.gamma * self.pw2(F.gelu(self.pw1(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 2, 2), ConvNeXtBlock(8), ConvNeXtBlock(8), Head(8))


class RepVGG(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.big, self.small = conv_bn(inputs, outputs), conv_bn(inputs, outputs, 1)
        self.identity = nn.BatchNorm2d(inputs) if inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.big(x) + self.small(x)
        return (y if self.identity is None else y + self.identity(x)).relu()


def repvgg() -> nn.Module:
    return nn.Sequential(RepVGG(3, 8), RepVGG(8, 8), RepVGG(8, 12), Head(12))


def depthwise_multiplier() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, padding=1, groups=6), nn.ReLU(), nn.Conv2d(12, 8, 1), Head(8)
    )


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(6, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )  # fmt: skip


def pixel_unshuffle() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.PixelUnshuffle(2), nn.Conv2d(24, 4, 1))


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 12, 3, dilation=2),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip


def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 8, (1, 3, 3)), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=6), nn.ReLU(), nn.Conv2d(6, 3, 1),
    )  # fmt: skip


def transposed_grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 12, 2, 2, groups=4),
        nn.ReLU(),
        nn.Conv2d(12, 3, 1),
    )


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(90, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5),
    )  # fmt: skip


class LeNet(nn.Module):
    def __init__(self, width: int | None) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 10, 3, padding=1)
        self.fc1, self.fc2, self.width = nn.Linear(90, 16), nn.Linear(16, 5), width

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, self.width) if self.width else x.view(x.size(0), -1)
        return self.fc2(F.relu(self.fc1(x)))


class FirstEight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        return self.head(self.conv2(x).relu() + x[:, :8])


class InTwoHalves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        return self.head(self.conv2(x[:, :6]).relu() + x[:, 6:])


def prelu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 6, 3), nn.PReLU(), Head(6))


def instance_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Conv2d(8, 6, 3),
        nn.InstanceNorm2d(6), nn.LeakyReLU(), Head(6),
    )  # fmt: skip


def weight_norm() -> nn.Module:
    wrap = nn.utils.parametrizations.weight_norm
    return nn.Sequential(wrap(nn.Conv2d(3, 8, 3)), nn.ReLU(), wrap(nn.Conv2d(8, 6, 3)), nn.ReLU(), Head(6))


def padded() -> nn.Module:
    return nn.Sequential(
        nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 3), nn.ZeroPad2d(1),
        nn.Conv2d(8, 6, 3, padding_mode="reflect", padding=1), nn.ELU(), nn.AvgPool2d(2), Head(6),
    )  # fmt: skip


class PaddedShortcut(nn.Module):
    """ResNet's option A: the shortcut gets channels of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv_bn(3, 8), conv_bn(8, 12), conv_bn(12, 12)
        self.head = Head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head((self.conv2(self.conv1(x).relu()) + F.pad(x, (0, 0, 0, 0, 2, 2))).relu())


class CatTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = conv_bn(3, 6), conv_bn(12, 8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        return self.head(self.conv2(torch.cat((x, x), 1)).relu())


class CrossCat(nn.Module):
    """Two concatenations in opposite orders meet in a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv_bn(3, 6), conv_bn(3, 6)
        self.head = Head(12)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x).relu(), self.right(x).relu()
        return self.head(torch.cat((left, right), 1) + torch.cat((right, left), 1))


class ChannelAttention(nn.Module):
    """CBAM's: a shared perceptron on two poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv_bn(3, 8), conv_bn(8, 8), Head(8)
        self.fc1, self.fc2 = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x).relu()).relu()
        weights = [self.fc2(self.fc1(pooled).relu()) for pooled in (x.mean((2, 3)), x.amax((2, 3)))]
        return self.head(x * (weights[0] + weights[1]).sigmoid()[:, :, None, None])


class SpatialAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mask, self.head = conv_bn(3, 8), nn.Conv2d(2, 1, 3, padding=1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        both = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return self.head(x * self.mask(both).sigmoid())


class Convolved(nn.Module):
    """A global response norm and a learned scale as in ConvNeXt V2."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 8, 1, 1)), nn.Parameter(torch.zeros(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x).relu()
        gx = x.norm(dim=(2, 3), keepdim=True)
        return self.fc2(self.gamma * (x * gx / (gx.mean(1, keepdim=True) + 1e-6)) + self.beta + x)


CASES: tuple[Case, ...] = (
    case(resnet_basic, IMAGE),
    case(resnet_bottleneck, IMAGE),
    case(resnext, IMAGE),
    case(mobilenet_v2, IMAGE),
    case(mobilenet_v3, IMAGE),
    case(efficientnet, IMAGE),
    case(DenseNet, IMAGE),
    case(shufflenet, IMAGE),
    case(ghostnet, IMAGE),
    case(yolo_c2f, IMAGE),
    case(UNet, IMAGE),
    case(UNetResize, IMAGE),
    case(convnext, IMAGE),
    case(repvgg, IMAGE),
    case(depthwise_multiplier, IMAGE),
    case(pixel_shuffle, IMAGE),
    case(pixel_unshuffle, IMAGE),
    case(conv1d, noise(2, 3, 16)),
    case(conv3d, noise(2, 2, 4, 6, 6)),
    case(transposed, IMAGE),
    case(transposed_grouped, IMAGE),
    case(vgg, IMAGE),
    case(lambda: LeNet(None), IMAGE, name="lenet"),
    case(lambda: LeNet(90), IMAGE, name="lenet_hard_coded"),
    case(FirstEight, IMAGE),
    case(InTwoHalves, IMAGE),
    case(prelu, IMAGE),
    case(instance_norm, IMAGE),
    case(weight_norm, IMAGE),
    case(padded, IMAGE),
    case(PaddedShortcut, IMAGE),
    case(CatTwice, IMAGE),
    case(CrossCat, IMAGE),
    case(ChannelAttention, IMAGE),
    case(SpatialAttention, IMAGE),
    case(Convolved, IMAGE),
)
