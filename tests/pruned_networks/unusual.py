"""Less usual blocks: biases and norms a head, attention on maps, gates over positions, complex numbers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.cases import noise
from pruned_networks.attention import Separate, block
from pruned_networks.case import Case, case
from pruned_networks.convolutional import IMAGE, Head, conv_bn


class TalkingHeads(Separate):
    """Scores of all heads are mixed before and after the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        scores = self.before((q @ k.transpose(-2, -1) * 0.5).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        weights = self.after(scores.softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.o((weights @ v).transpose(1, 2).flatten(2))


class Alibi(Separate):
    """A slope a head, in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slopes", 2.0 ** -torch.arange(1.0, 5.0))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        places = torch.arange(x.shape[1])
        bias = self.slopes[:, None, None] * (places[None, :] - places[:, None]).abs().neg()
        return self.o(F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).flatten(2))


class RelativeBias(Separate):
    """T5's: an embedding of distances, a column a head."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Embedding(11, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        places = torch.arange(x.shape[1])
        bias = self.bias(places[None, :] - places[:, None] + 5).permute(2, 0, 1).unsqueeze(0)
        return self.o(F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).flatten(2))


class ComplexRope(Separate):
    """Rotary positions as products of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("angles", torch.arange(6.0)[:, None] * 0.3 ** torch.arange(2.0)[None])

    def rotate(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        turned = pairs * torch.polar(torch.ones_like(self.angles), self.angles)
        return torch.view_as_real(turned).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v)
        return self.o(y.transpose(1, 2).flatten(2))


class NormedHeads(Separate):
    """Every head's output has a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.o(self.norm(y.flatten(0, 1)).view(*y.shape))


class SpatialReduction(Separate):
    """PVT's: keys and values from a smaller map."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.norm, self.kv = nn.Conv2d(16, 16, 2, 2), nn.LayerNorm(16), nn.Linear(16, 32)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q = self.q(x).reshape(B, N, self.num_heads, C // self.num_heads).permute(0, 2, 1, 3)
        small = self.reduce(x.permute(0, 2, 1).reshape(B, C, 2, 3)).reshape(B, C, -1).permute(0, 2, 1)
        kv = self.kv(self.norm(small)).reshape(B, -1, 2, self.num_heads, C // self.num_heads)
        k, v = kv.permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(B, N, C))


class OnMaps(nn.Module):
    """Attention whose layers are 1 × 1 convolutions with norms, as in LeViT and BoTNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.proj = conv_bn(3, 16), conv_bn(16, 48, 1), conv_bn(16, 16, 1)
        self.heads, self.head = 4, Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        B, _, H, W = x.shape
        q, k, v = self.qkv(x).view(B, 3, self.heads, -1, H * W).unbind(1)
        y = v @ (q.transpose(-2, -1) @ k * 0.5).softmax(-1).transpose(-2, -1)
        return self.head(x + self.proj(y.reshape(B, -1, H, W)))


class NonLocal(nn.Module):
    """One head, no split."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv_bn(3, 8), Head(8)
        self.theta, self.phi, self.g = (nn.Conv2d(8, 4, 1) for _ in range(3))
        self.out = nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (f(x).flatten(2) for f in (self.theta, self.phi, self.g))
        y = v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)
        return self.head(x + self.out(y.view(x.shape[0], -1, *x.shape[2:])))


class Eca(nn.Module):
    """A convolution over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv_bn(3, 8), nn.Conv1d(1, 1, 3, padding=1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        weight = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return self.head(x * weight[:, :, None, None])


class SpatialGate(nn.Module):
    """gMLP's: half of the channels, mixed over positions, gates the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(16, 24), nn.LayerNorm(12)
        self.positions, self.down = nn.Conv1d(6, 6, 1), nn.Linear(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = F.gelu(self.up(x)).chunk(2, -1)
        return self.down(value * self.positions(self.norm(gate)))


class MobileVit(nn.Module):
    """Pixels of patches attend to their like: a map unfolded by reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.attn, self.norm = conv_bn(3, 16), Separate(), nn.LayerNorm(16)
        self.fuse, self.head = conv_bn(32, 12), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        B, C, H, W = x.shape
        y = x.reshape(B * C * H // 2, 2, W // 2, 2).transpose(1, 2).reshape(B, C, H * W // 4, 4)
        y = y.transpose(1, 3).reshape(B * 4, -1, C)
        y = y + self.attn(self.norm(y))
        y = y.view(B, 4, -1, C).transpose(1, 3).reshape(B * C * H // 2, W // 2, 2, 2)
        y = y.transpose(1, 2).reshape(B, C, H, W)
        return self.head(self.fuse(torch.cat((x, y), 1)).relu())


class Pyramid(nn.Module):
    """Feature pyramid: one width for all levels, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = conv_bn(3, 8, stride=2), conv_bn(8, 12, stride=2)
        self.l1, self.l2 = nn.Conv2d(8, 10, 1), nn.Conv2d(12, 10, 1)
        self.p1, self.out1, self.out2 = conv_bn(10, 10), nn.Conv2d(10, 4, 1), nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c1 = self.c1(x).relu()
        c2 = self.l2(self.c2(c1).relu())
        p1 = self.p1(self.l1(c1) + F.interpolate(c2, scale_factor=2.0))
        return self.out1(p1), self.out2(c2)


CASES: tuple[Case, ...] = (
    block(TalkingHeads),
    block(Alibi),
    block(RelativeBias),
    block(ComplexRope),
    block(NormedHeads),
    block(SpatialReduction),
    case(OnMaps, IMAGE),
    case(NonLocal, IMAGE),
    case(Eca, IMAGE),
    block(SpatialGate),
    case(MobileVit, noise(2, 3, 4, 4)),
    case(Pyramid, IMAGE),
)
