"""Attention in the spellings that are met in the wild."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.cases import integers, noise
from pruned_networks.case import Case, case

TOKENS = noise(2, 6, 16)
CONTEXT = noise(2, 5, 12, seed=1)
IDS = integers(11, 2, 6)


class Block(nn.Module):
    """A pre-norm block around an attention, and a head."""

    def __init__(self, attn: nn.Module, dim: int = 16) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), attn, nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(x.mean(1))


class Separate(nn.Module):
    """q, k, v by layers of their own; the output is flattened."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        return x.view(B, N, self.num_heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(
            self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        )
        return self.o(y.transpose(1, 2).flatten(2))


class SeparateMinusOne(Separate):
    """Sizes by -1 and by an attribute."""

    def split(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        return x.view(B, N, -1, self.head_dim).transpose(1, 2)


class HeadsMinusOne(Separate):
    """view(b, t, H, -1): the heads are counted, their size follows."""

    def split(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        return x.view(B, N, self.num_heads, -1).transpose(1, 2)


class Timm(nn.Module):
    """timm's: fused qkv, reshape back to (B, N, C)."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, C))


class OldTimm(nn.Module):
    """Older timm's: C // num_heads from the input, softmax spelled out."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.num_heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = ((q @ k.transpose(-2, -1)) * self.scale).softmax(-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))


class FusedFlatten(Timm):
    """Fused qkv, but the output is flattened."""

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Gpt2(nn.Module):
    """GPT-2's and nanoGPT's: split by width, sizes from the input, a causal mask."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.n_head, self.n_embd = heads, dim
        self.c_attn, self.c_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class Bert(nn.Module):
    """BERT's: all_head_size, attention_head_size."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = heads, dim // heads
        self.all_head_size = dim
        self.query, self.key, self.value, self.dense = (nn.Linear(dim, dim) for _ in range(4))

    def transpose_for_scores(self, x: Tensor) -> Tensor:
        return x.view(*x.size()[:-1], self.num_attention_heads, self.attention_head_size).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.transpose_for_scores(f(x)) for f in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / self.attention_head_size**0.5
        y = torch.matmul(scores.softmax(-1), v).permute(0, 2, 1, 3).contiguous()
        return self.dense(y.view(*y.size()[:-2], self.all_head_size))


class Configured(nn.Module):
    """Sizes on a config object that all blocks share."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_heads=heads, head_dim=dim // heads)
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        shape = (B, N, self.config.num_heads, self.config.head_dim)
        q, k, v = (f(x).view(shape).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Einsum(nn.Module):
    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        q, k, v = (
            part.reshape(B, N, self.heads, -1).transpose(1, 2) for part in self.to_qkv(x).chunk(3, dim=-1)
        )
        attn = (torch.einsum("bhid,bhjd->bhij", q, k) * self.scale).softmax(-1)
        y = torch.einsum("bhij,bhjd->bhid", attn, v)
        return self.to_out(y.transpose(1, 2).reshape(B, N, -1))


class EinsumWeights(nn.Module):
    """Weights with an axis of heads, as in JAX ports."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.wq, self.wk, self.wv = (nn.Parameter(torch.randn(dim, heads, 4) / 4) for _ in range(3))
        self.wo = nn.Parameter(torch.randn(heads, 4, dim) / 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btc,chd->bhtd", x, w) for w in (self.wq, self.wk, self.wv))
        y = F.scaled_dot_product_attention(q, k, v)
        return torch.einsum("bhtd,hdc->btc", y, self.wo)


class Grouped(nn.Module):
    """Grouped queries; how key heads reach their queries is left to the spelling."""

    def __init__(self, spelling: str, dim: int = 16, heads: int = 4, kv_heads: int = 2) -> None:
        super().__init__()
        self.spelling, self.n_heads, self.n_kv_heads, self.head_dim = spelling, heads, kv_heads, 4
        self.n_rep = heads // kv_heads
        self.wq, self.wo = nn.Linear(dim, 4 * heads, bias=False), nn.Linear(4 * heads, dim, bias=False)
        self.wk, self.wv = (nn.Linear(dim, 4 * kv_heads, bias=False) for _ in range(2))

    def repeat(self, x: Tensor) -> Tensor:
        B, H, T, D = x.shape
        if self.spelling == "interleave":
            return x.repeat_interleave(self.n_rep, dim=1)
        if self.spelling == "expand":
            return x[:, :, None, :, :].expand(B, H, self.n_rep, T, D).reshape(B, H * self.n_rep, T, D)
        return x

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q = self.wq(x).view(B, T, self.n_heads, self.head_dim).transpose(1, 2)
        k, v = (
            self.repeat(f(x).view(B, T, self.n_kv_heads, self.head_dim).transpose(1, 2))
            for f in (self.wk, self.wv)
        )
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.spelling == "enable_gqa")
        return self.wo(y.transpose(1, 2).reshape(B, T, -1))


class FusedGrouped(nn.Module):
    """Grouped queries, fused: parts of unequal width."""

    def __init__(self, dim: int = 16, heads: int = 4, kv_heads: int = 2) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = heads, kv_heads, 4
        self.q_size, self.kv_size = heads * 4, kv_heads * 4
        self.qkv_proj, self.o_proj = (
            nn.Linear(dim, self.q_size + 2 * self.kv_size),
            nn.Linear(self.q_size, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q, k, v = self.qkv_proj(x).split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        q = q.view(B, T, self.num_heads, self.head_dim).transpose(1, 2)
        k = k.view(B, T, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = v.view(B, T, self.num_kv_heads, self.head_dim).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))


class MultiQuery(nn.Module):
    """One key and value for all heads."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, 4
        self.q, self.o = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.k, self.v = nn.Linear(dim, 4), nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q = self.q(x).view(B, T, self.num_heads, self.head_dim).transpose(1, 2)
        k, v = self.k(x)[:, None], self.v(x)[:, None]
        attn = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1)
        return self.o((attn @ v).transpose(1, 2).reshape(B, T, -1))


class Rope(nn.Module):
    """Rotary positions: "half" rotates halves as Llama does, "pairs" rotates neighbours."""

    def __init__(self, style: str, qk_norm: bool = False, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.style, self.num_heads, self.head_dim = style, heads, 4
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        angles = torch.arange(6)[:, None] * 0.3 ** torch.arange(2)[None]
        angles = torch.cat((angles, angles), -1) if style == "half" else angles.repeat_interleave(2, -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.q_norm = nn.RMSNorm(4) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(4) if qk_norm else nn.Identity()

    def rotate(self, x: Tensor) -> Tensor:
        if self.style == "half":
            left, right = x.chunk(2, -1)
            turned = torch.cat((-right, left), -1)
        else:
            turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
        return x * self.cos + turned * self.sin

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (
            f(x).view(B, T, self.num_heads, self.head_dim).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        q, k = self.rotate(self.q_norm(q)), self.rotate(self.k_norm(k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(B, T, -1))


class Llama(nn.Module):
    """Two blocks with RMS norms, rotary grouped attention and SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.layers = nn.ModuleList(LlamaBlock() for _ in range(2))
        self.norm, self.lm_head = nn.RMSNorm(16), nn.Linear(16, 11, bias=False)
        angles = torch.arange(6)[:, None] * 0.3 ** torch.arange(2)[None]
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.lm_head(self.norm(x))


class LlamaBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(16), nn.RMSNorm(16)
        self.self_attn, self.mlp = LlamaAttention(), LlamaMlp()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class LlamaMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(16, 24, bias=False), nn.Linear(16, 24, bias=False)
        self.down_proj = nn.Linear(24, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaAttention(nn.Module):
    """As transformers has it: sizes by -1, shared key heads expanded."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dim, self.num_key_value_groups = 4, 2
        self.q_proj, self.o_proj = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.k_proj, self.v_proj = nn.Linear(16, 8, bias=False), nn.Linear(16, 8, bias=False)

    def repeat(self, x: Tensor) -> Tensor:
        B, H, T, D = x.shape
        n = self.num_key_value_groups
        return x[:, :, None, :, :].expand(B, H, n, T, D).reshape(B, H * n, T, D)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = (f(x).view(shape).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (y * cos + torch.cat((-y[..., 2:], y[..., :2]), -1) * sin for y in (q, k))
        scores = q @ self.repeat(k).transpose(2, 3) * self.head_dim**-0.5
        scores = scores + torch.full((6, 6), float("-inf")).triu(1)
        y = scores.softmax(-1) @ self.repeat(v)
        return self.o_proj(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


class Window(nn.Module):
    """Swin's: windows, and a table of relative positions with a column a head."""

    def __init__(self, dim: int = 16, heads: int = 4, side: int = 2) -> None:
        super().__init__()
        self.num_heads, self.side, self.scale = heads, side, (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * side - 1) ** 2, heads))
        grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        distance = (grid[:, :, None] - grid[:, None]).permute(1, 2, 0) + side - 1
        self.register_buffer("relative_position_index", distance[..., 0] * (2 * side - 1) + distance[..., 1])
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        s = self.side
        x = x.view(B, H // s, s, W // s, s, C).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, C)
        N = x.shape[1]
        qkv = self.qkv(x).reshape(-1, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = q * self.scale @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(N, N, -1)
        attn = (attn + bias.permute(2, 0, 1).unsqueeze(0)).softmax(-1)
        x = self.proj((attn @ v).transpose(1, 2).reshape(-1, N, C))
        return x.view(B, H // s, W // s, s, s, C).permute(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm1, self.attn = nn.Conv2d(3, 16, 2, 2), nn.LayerNorm(16), Window()
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        shifted = torch.roll(self.norm1(x), (-1, -1), (1, 2))
        x = x + torch.roll(self.attn(shifted), (1, 1), (1, 2))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(x.mean((1, 2)))


class Cross(nn.Module):
    """Queries from one sequence, keys and values from another; diffusers' way with -1."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.to_q, self.to_out = nn.Linear(16, 16, bias=False), nn.Linear(16, 16)
        self.to_k, self.to_v = nn.Linear(12, 16, bias=False), nn.Linear(12, 16, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        B = x.shape[0]
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        head_dim = k.shape[-1] // self.heads
        q, k, v = (y.view(B, -1, self.heads, head_dim).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(y.transpose(1, 2).reshape(B, -1, self.heads * head_dim))


class Torch(nn.Module):
    """`nn.MultiheadAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x, need_weights=False)[0]


class AdaLN(nn.Module):
    """A DiT block: shift, scale and gate from a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.modulation = nn.Linear(12, 24), nn.Linear(24, 6 * 16)
        self.norm1 = nn.LayerNorm(16, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(16, elementwise_affine=False)
        self.attn, self.fc1, self.fc2 = FusedFlatten(), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        c = F.silu(self.embed(c.mean(1)))
        parts = self.modulation(c)[:, None].chunk(6, dim=-1)
        x = x + parts[2] * self.attn(self.norm1(x) * (1 + parts[1]) + parts[0])
        return x + parts[5] * self.fc2(F.gelu(self.fc1(self.norm2(x) * (1 + parts[4]) + parts[3])))


class LinearAttention(nn.Module):
    """LiT's: ReLU features, key-value products first, a depthwise convolution on v."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.dwc = nn.Conv2d(dim // heads, dim // heads, 3, padding=1, groups=dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = F.relu(q) + 1e-3, F.relu(k) + 1e-3
        z = 1 / (q @ k.mean(-2, keepdim=True).transpose(-2, -1) + 1e-6)
        y = q @ (k.transpose(-2, -1) / N @ v) * z
        maps = v.reshape(B * self.num_heads, 2, 3, self.head_dim).permute(0, 3, 1, 2)
        y = y + self.dwc(maps).permute(0, 2, 3, 1).reshape(B, self.num_heads, N, self.head_dim)
        return self.proj(y.transpose(1, 2).flatten(2))


class Unit(nn.Module):
    """VAR's: unit queries and keys, a learned scale a head."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), 1.0))
        self.mat_qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("zero_k_bias", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        B, L, C = x.shape
        bias = torch.cat((self.q_bias, self.zero_k_bias, self.v_bias))
        qkv = F.linear(x, self.mat_qkv.weight, bias).view(B, L, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q = F.normalize(q, dim=-1) * self.scale_mul_1H11.clamp_max(4).exp()
        y = F.scaled_dot_product_attention(q, F.normalize(k, dim=-1), v, scale=1.0)
        return self.proj(y.transpose(1, 2).reshape(B, L, C))


class Vit(nn.Module):
    """Patches, a class token, positions, two blocks of timm's."""

    def __init__(self, attn: type[nn.Module] = Timm) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 16, 4, 4)
        self.cls_token, self.pos_embed = (
            nn.Parameter(torch.zeros(1, 1, 16)),
            nn.Parameter(torch.zeros(1, 10, 16)),
        )
        self.blocks = nn.Sequential(*(Residual(attn()) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class Residual(nn.Module):
    def __init__(self, attn: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(16), attn, nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TwoSizes(nn.Module):
    """Channels as tokens: attention over channels of a feature map (XCiT, Restormer)."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.num_heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        attn = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature).softmax(
            -1
        )
        return self.proj((attn @ v).permute(0, 3, 1, 2).reshape(B, N, C))


def block(attn: type[nn.Module], name: str = "", **options: object) -> Case:
    return case(lambda: Block(attn(**options)), TOKENS, name=name or attn.__name__)


CASES: tuple[Case, ...] = (
    block(Separate),
    block(SeparateMinusOne),
    block(HeadsMinusOne),
    block(Timm),
    block(OldTimm),
    block(FusedFlatten),
    block(Gpt2),
    block(Bert),
    block(Configured),
    block(Einsum),
    block(EinsumWeights),
    block(Grouped, "gqa_interleave", spelling="interleave"),
    block(Grouped, "gqa_expand", spelling="expand"),
    block(Grouped, "gqa_enable", spelling="enable_gqa"),
    block(FusedGrouped),
    block(MultiQuery),
    block(Rope, "rope_half", style="half"),
    block(Rope, "rope_pairs", style="pairs"),
    block(Rope, "rope_qk_norm", style="half", qk_norm=True),
    case(Llama, IDS),
    case(Swin, noise(2, 3, 8, 8)),
    case(Cross, TOKENS, CONTEXT),
    block(Torch),
    case(lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), TOKENS, name="encoder_layer"),
    case(AdaLN, TOKENS, CONTEXT),
    block(LinearAttention),
    block(Unit),
    case(Vit, noise(2, 3, 12, 12)),
    block(TwoSizes),
)
