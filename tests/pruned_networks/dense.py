"""Perceptrons, gated units, raw parameters, embeddings and what else is not a convolution."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.cases import integers, noise
from pruned_networks.case import Case, case

ROWS = noise(3, 10)
TOKENS = noise(2, 6, 8)


class ChunkGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(10, 32), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(value * F.gelu(gate))


class FunctionGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(10, 32), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.glu(self.up(x)))


class InterleavedGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(10, 32), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        return self.down(x[..., ::2] * x[..., 1::2].sigmoid())


class UnflattenedGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(10, 32), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).unflatten(-1, (2, -1)).unbind(-2)
        return self.down(value * F.silu(gate))


class SwiGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(10, 24, bias=False), nn.Linear(10, 24, bias=False)
        self.w2 = nn.Linear(24, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.w2(F.silu(self.w1(x)) * self.w3(x))


class RawMatmul(nn.Module):
    """Weights that no layer owns, as they stand and transposed, and `addmm`."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(10, 12)), nn.Parameter(torch.randn(14, 12))
        self.w3, self.w4 = nn.Parameter(torch.randn(14, 16)), nn.Parameter(torch.randn(16, 5))
        self.b1, self.b3 = nn.Parameter(torch.randn(12)), nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x @ self.w1 + self.b1)
        x = torch.relu(torch.matmul(x, self.w2.t()))
        x = torch.relu(torch.addmm(self.b3, x, self.w3))
        return torch.mm(x, self.w4)


class LinearCalls(nn.Module):
    """`F.linear` of raw parameters, one of them shared with a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 12), nn.Linear(12, 10, bias=False)
        self.scale = nn.Parameter(torch.rand(12))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(F.linear(x, self.first.weight, self.first.bias)) * self.scale
        return self.second(hidden)


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's weight transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(10, 6)
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.encoder(x)) @ self.encoder.weight + self.bias


class TiedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(11, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + self.down(F.gelu(self.up(x))))


class Untied(nn.Module):
    """An embedding whose columns go with the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(11, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.position = nn.Parameter(torch.randn(6, 8))
        self.head = nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.position
        return self.head(x + self.down(F.gelu(self.up(x))))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.token1, self.token2 = nn.Linear(6, 12), nn.Linear(12, 6)
        self.channel1, self.channel2 = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token2(F.gelu(self.token1(self.norm1(x).transpose(1, 2)))).transpose(1, 2)
        x = x + self.channel2(F.gelu(self.channel1(self.norm2(x))))
        return self.head(x.mean(1))


class Highway(nn.Module):
    """A gate made from channels that gates the same channels, in a double role."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.second = nn.Linear(10, 12), nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        gate = self.gate(x).sigmoid()
        return self.second(gate * x + (1 - gate) * x.square())


class OutsideProduct(nn.Module):
    """A bilinear product of two feature vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(10, 6), nn.Linear(10, 4), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        both = self.left(x).unsqueeze(2) * self.right(x).unsqueeze(1)
        return self.head(both.flatten(1))


class SoftmaxChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(10, 12), nn.Linear(12, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x).softmax(-1)).relu())


class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 24), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        B = x.shape[0]
        return self.second(self.first(x).view(B, -1, 2).amax(-1))


class Gathered(nn.Module):
    """Channels in an order that a buffer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(10, 12), nn.Linear(12, 8), nn.Linear(8, 5)
        self.register_buffer("order", torch.randperm(12))

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x).relu()[:, self.order]).relu())


class Experts(nn.Module):
    """A batch of weights, one an expert, mixed by a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(10, 3)
        self.up, self.down = nn.Parameter(torch.randn(3, 10, 12)), nn.Parameter(torch.randn(3, 12, 5))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("bi,eih->ebh", x, self.up).relu()
        out = torch.einsum("ebh,eho->ebo", hidden, self.down)
        return torch.einsum("ebo,be->bo", out, self.router(x).softmax(-1))


class EinsumLayers(nn.Module):
    """Linear layers spelled as einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(8, 12)), nn.Parameter(torch.randn(5, 12))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("bti,ih->bth", x, self.up).relu()
        return torch.einsum("bth,oh->bto", hidden, self.down)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.pair, self.last = nn.Linear(10, 8), nn.Bilinear(8, 10, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pair(self.first(x).relu(), x).relu())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm, self.last = (
            nn.Linear(8, 10),
            nn.LSTM(10, 12, batch_first=True),
            nn.Linear(12, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.lstm(self.first(x).relu())[0])


class Standardised(nn.Module):
    """A convolution whose kernel is standardised in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.next = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        w = self.conv.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        x = F.conv2d(x, w, self.conv.bias).relu()
        return self.fc(self.next(x).relu().mean((2, 3)))


class Normalised(nn.Module):
    """Features of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(10, 12), nn.Linear(12, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.normalize(self.second(self.first(x).relu()), dim=-1))


class Bn1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(10, 12), nn.BatchNorm1d(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu())


IDS = integers(11, 2, 6)

CASES: tuple[Case, ...] = (
    case(ChunkGLU, ROWS),
    case(FunctionGLU, ROWS),
    case(InterleavedGLU, ROWS),
    case(UnflattenedGLU, ROWS),
    case(SwiGLU, ROWS),
    case(RawMatmul, ROWS),
    case(LinearCalls, ROWS),
    case(TiedAutoencoder, ROWS),
    case(TiedEmbedding, IDS),
    case(Untied, IDS),
    case(Mixer, TOKENS),
    case(Highway, ROWS),
    case(OutsideProduct, ROWS),
    case(SoftmaxChannels, ROWS),
    case(Maxout, ROWS),
    case(Gathered, ROWS),
    case(Experts, ROWS),
    case(EinsumLayers, TOKENS),
    case(Bilinear, ROWS),
    case(Recurrent, TOKENS),
    case(Standardised, noise(2, 3, 8, 8)),
    case(Normalised, ROWS),
    case(Bn1d, ROWS),
)
