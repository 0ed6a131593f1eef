"""Decoder blocks with a growing key/value cache: mask-less SDPA over past and present (VAR, LLMs)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.attention import Mlp, merge_heads, split_heads
from networks.cases import Case, Inputs, noise, seeded

_WIDTH, _HEADS, _DEPTH = 64, 4, 2


class CachedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.out = nn.Linear(_WIDTH, _WIDTH)
        self.mlp = Mlp(_WIDTH)

    def forward(self, x: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (split_heads(part, _HEADS) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(
            q, torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
        )
        x = x + self.out(merge_heads(attended))
        return x + self.mlp(self.norm2(x)), k, v


class CachedStack(nn.Module):
    """Only the new keys and values leave the graph: the cache itself belongs to the caller.

    x is (B, new, C); past_k and past_v are (layers, B, H, past, D).
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CachedBlock() for _ in range(_DEPTH))

    def forward(self, x: Tensor, past_k: Tensor, past_v: Tensor) -> dict[str, Tensor]:
        keys, values = [], []
        for i, block in enumerate(self.blocks):
            x, k, v = block(x, past_k[i], past_v[i])
            keys.append(k)
            values.append(v)
        return {"hidden": x, "new_k": torch.stack(keys), "new_v": torch.stack(values)}


def _inputs(batch: int, new: int, past: int) -> Inputs:
    cache = (_DEPTH, batch, _HEADS, past, _WIDTH // _HEADS)
    return Inputs((noise(batch, new, _WIDTH), noise(*cache, seed=1), noise(*cache, seed=2)))


_BATCH = torch.export.Dim("batch", min=1, max=4)
_NEW = torch.export.Dim("new", min=1, max=64)
_PAST = torch.export.Dim("past", min=0, max=256)

CASES = (
    Case(
        "kv_cache",
        seeded(CachedStack),
        _inputs,
        sample={"batch": 2, "new": 4, "past": 5},
        dynamic_shapes={
            "x": {0: _BATCH, 1: _NEW},
            "past_k": {1: _BATCH, 3: _PAST},
            "past_v": {1: _BATCH, 3: _PAST},
        },
        # A VAR loop in order: one token on an empty cache first, then more and more on what is there.
        sizes=(
            {"batch": 1, "new": 1, "past": 0},
            {"batch": 1, "new": 4, "past": 1},
            {"batch": 1, "new": 9, "past": 5},
            {"batch": 1, "new": 16, "past": 14},
            {"batch": 4, "new": 64, "past": 256},
            {"batch": 2, "new": 1, "past": 30},
        ),
    ),
)
