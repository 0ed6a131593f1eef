"""Text encoder: token and position tables, padding mask, pre-norm transformer, masked mean (BERT, CLIP)."""

import torch
from torch import Tensor, nn

from networks.attention import Mlp, SelfAttention
from networks.cases import Case, Inputs, integers, seeded


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class TextEncoder(nn.Module):
    """(B, L) ids and mask (true where a token is) to (B, L, C) states and a (B, C) sentence vector."""

    def __init__(self, vocabulary: int = 97, width: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width, padding_idx=0)
        self.positions = nn.Embedding(64, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        keep = attention_mask.to(torch.bool)
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.tokens(input_ids) + self.positions(steps)
        for layer in self.layers:
            x = layer(x, keep[:, None, None, :])
        x = self.norm(x)
        weight = keep.unsqueeze(-1).to(x.dtype)
        return x, (x * weight).sum(1) / weight.sum(1).clamp_min(1.0)


def _inputs(batch: int, length: int, dtype: torch.dtype) -> Inputs:
    lengths = torch.arange(batch) % length + 1
    mask = torch.arange(length)[None, :] < lengths.flip(0)[:, None]
    return Inputs((integers(96, batch, length) + 1, mask.to(dtype)))


_BATCH = torch.export.Dim("batch", min=1, max=8)
_LENGTH = torch.export.Dim("length", min=2, max=64)


def _case(name: str, dtype: torch.dtype) -> Case:
    return Case(
        name,
        seeded(TextEncoder),
        lambda batch, length: _inputs(batch, length, dtype),
        sample={"batch": 2, "length": 7},
        dynamic_shapes={
            "input_ids": {0: _BATCH, 1: _LENGTH},
            "attention_mask": {0: _BATCH, 1: _LENGTH},
        },
        sizes=({"batch": 1, "length": 2}, {"batch": 3, "length": 11}, {"batch": 8, "length": 64}),
    )


CASES = (_case("text_bool_mask", torch.bool), _case("text_int_mask", torch.int64))
