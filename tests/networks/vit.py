"""Vision transformer: patch convolution, class token, position table, tanh-GELU (Dosovitskiy et al. 2020)."""

import torch
from torch import Tensor, nn

from networks.attention import Mlp, SelfAttention
from networks.cases import Case, Inputs, noise, seeded


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """(B, 3, 32, 32) image to (B, classes) logits."""

    def __init__(
        self, width: int = 64, heads: int = 4, depth: int = 2, patch: int = 8, classes: int = 10
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.pos_embed = nn.Parameter(torch.randn(1, (32 // patch) ** 2 + 1, width) * 0.5)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patch_embed(image).flatten(2).transpose(1, 2)  # (B, 16, C)
        # `len(patches)` would pin the batch to the traced one.
        x = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


CASES = (
    Case(
        "vit",
        seeded(VisionTransformer),
        lambda batch: Inputs((noise(batch, 3, 32, 32),)),
        sample={"batch": 2},
        dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=8)}},
        sizes=({"batch": 1}, {"batch": 3}, {"batch": 8}),
    ),
)
