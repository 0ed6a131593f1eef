"""One scale of a VAR generator: l2-normalised attention, adaLN, resized residual map (Tian et al. 2024).

Resizes are not integer factors: 5 to 8 bicubic up, 8 to 6 area down.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.attention import Mlp, merge_heads, split_heads
from networks.cases import Case, Inputs, integers, noise, seeded

_WIDTH, _HEADS, _CODES, _FULL, _HERE, _NEXT = 64, 4, 32, 8, 5, 6


class VarBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(_WIDTH, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(_WIDTH, eps=1e-6, elementwise_affine=False)
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH, bias=False)
        self.q_bias = nn.Parameter(torch.randn(_WIDTH) * 0.1)
        self.v_bias = nn.Parameter(torch.randn(_WIDTH) * 0.1)
        self.register_buffer("zero_k_bias", torch.zeros(_WIDTH))
        self.scale_mul = nn.Parameter(math.log(4.0) + 2 * torch.rand(1, _HEADS, 1, 1))
        self.out = nn.Linear(_WIDTH, _WIDTH)
        self.mlp = Mlp(_WIDTH)
        self.ada = nn.Linear(_WIDTH, 6 * _WIDTH)

    def attend(self, x: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bias = torch.cat((self.q_bias, self.zero_k_bias, self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = (split_heads(part, _HEADS) for part in qkv.chunk(3, dim=-1))
        q = F.normalize(q, dim=-1) * self.scale_mul.clamp_max(math.log(100.0)).exp()
        k = F.normalize(k, dim=-1)
        keys, values = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
        return self.out(merge_heads(F.scaled_dot_product_attention(q, keys, values, scale=1.0))), k, v

    def forward(
        self, x: Tensor, cond: Tensor, past_k: Tensor, past_v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        mods = self.ada(F.silu(cond)).view(-1, 1, 6, _WIDTH)
        gamma1, gamma2, scale1, scale2, shift1, shift2 = mods.unbind(2)
        attended, k, v = self.attend(self.norm1(x) * (1 + scale1) + shift1, past_k, past_v)
        x = x + gamma1 * attended
        return x + gamma2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2), k, v


class VarScale(nn.Module):
    """Codes of this scale into the residual map, and the map into the next scale's logits.

    f_hat (B, 32, 8, 8), codes (B, 25) int64, label (B,) int64, past_k and past_v (B, H, past, D).
    """

    def __init__(self, vocabulary: int = 64) -> None:
        super().__init__()
        self.codebook = nn.Embedding(vocabulary, _CODES)
        self.phi = nn.Conv2d(_CODES, _CODES, 3, padding=1)
        self.word_embed = nn.Linear(_CODES, _WIDTH)
        self.class_emb = nn.Embedding(11, _WIDTH)
        self.pos = nn.Parameter(torch.randn(1, _NEXT * _NEXT, _WIDTH) * 0.3)
        self.block = VarBlock()
        self.norm = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.head = nn.Linear(_WIDTH, vocabulary)

    def forward(
        self, f_hat: Tensor, codes: Tensor, label: Tensor, past_k: Tensor, past_v: Tensor
    ) -> dict[str, Tensor]:
        h = self.codebook(codes).transpose(1, 2).unflatten(-1, (_HERE, _HERE))
        h = F.interpolate(h, size=(_FULL, _FULL), mode="bicubic")
        f_hat = f_hat + 0.5 * h + 0.5 * self.phi(h)
        small = F.interpolate(f_hat, size=(_NEXT, _NEXT), mode="area")
        x = self.word_embed(small.flatten(2).transpose(1, 2)) + self.pos
        x, k, v = self.block(x, self.class_emb(label), past_k, past_v)
        return {"logits": self.head(self.norm(x)), "f_hat": f_hat, "new_k": k, "new_v": v}


def _inputs(batch: int, past: int) -> Inputs:
    cache = (batch, _HEADS, past, _WIDTH // _HEADS)
    keys = F.normalize(noise(*cache, seed=1), dim=-1)
    codes, label = integers(64, batch, _HERE * _HERE), integers(11, batch, seed=3)
    return Inputs((noise(batch, _CODES, _FULL, _FULL), codes, label, keys, noise(*cache, seed=2)))


_BATCH = torch.export.Dim("batch", min=1, max=8)
_PAST = torch.export.Dim("past", min=1, max=128)

CASES = (
    Case(
        "var",
        seeded(VarScale),
        _inputs,
        sample={"batch": 2, "past": 30},
        dynamic_shapes={
            "f_hat": {0: _BATCH},
            "codes": {0: _BATCH},
            "label": {0: _BATCH},
            "past_k": {0: _BATCH, 2: _PAST},
            "past_v": {0: _BATCH, 2: _PAST},
        },
        sizes=({"batch": 1, "past": 1}, {"batch": 2, "past": 17}, {"batch": 8, "past": 128}),
    ),
)
