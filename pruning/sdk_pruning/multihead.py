"""`nn.MultiheadAttention` with fewer heads or narrower ones than its width divides into."""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, scaled_dot_product_attention


class PrunedMultiheadAttention(nn.MultiheadAttention):
    """Computes what `nn.MultiheadAttention` does, with all widths read off the weights.

    Torch's own asks for heads that together are as wide as its input. Parameters and their names are the
    same. `head_dim` stays that of the dense layer: the softmax scale is 1 / √head_dim.
    """

    def forward(  # the arguments are torch's
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,  # noqa: ARG002 - torch's hint that `attn_mask`, which must be given, is causal
    ) -> tuple[Tensor, Tensor | None]:
        """(B, L, E) where `batch_first`, else (L, B, E), or (L, E); see `nn.MultiheadAttention`."""
        single = query.ndim == 2
        given = [query, key, value]
        if single:
            given = [one.unsqueeze(0) for one in given]
        elif not self.batch_first:
            given = [one.transpose(0, 1) for one in given]
        heads = [self._split(one) for one in self._projected(*given)]
        mask = self._mask(heads[0], key_padding_mask, attn_mask, single=single)
        result, weights = self._attended(heads, mask, need_weights, average_attn_weights)
        output = self.out_proj(result.transpose(1, 2).flatten(2))
        if single:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values, (B, L, their width)."""
        packed: Tensor | None = self.in_proj_weight  # None where keys or values have a width of their own
        if packed is not None:
            wide = self.out_proj.in_features
            narrow = (packed.shape[0] - wide) // 2
            weights = torch.split(packed, [narrow, narrow, wide])
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases: tuple[Tensor | None, ...] = (None, None, None)
        if self.in_proj_bias is not None:
            biases = torch.split(self.in_proj_bias, [weight.shape[0] for weight in weights])
        return [linear(*each) for each in zip((query, key, value), weights, biases, strict=True)]

    def _split(self, features: Tensor) -> Tensor:
        """(B, H, L, D)."""
        return features.reshape(*features.shape[:2], self.num_heads, -1).transpose(1, 2)

    def _mask(
        self, query: Tensor, padding: Tensor | None, mask: Tensor | None, *, single: bool
    ) -> Tensor | None:
        """What is added to the scores, to be broadcast to (B, H, L, S)."""
        total = None
        if mask is not None:
            total = _additive(mask, query.dtype)
            if total.ndim == 3:  # of every sample and head; of the dense heads it would fit no more
                total = total.reshape(query.shape[0], -1, *total.shape[1:])
        if padding is not None:
            padding = _additive(padding, query.dtype)
            padding = padding[None, None, None] if single else padding[:, None, None]
            total = padding if total is None else total + padding
        return total

    def _attended(
        self, heads: list[Tensor], mask: Tensor | None, need_weights: bool, average: bool
    ) -> tuple[Tensor, Tensor | None]:
        scale, dropped = self.head_dim**-0.5, self.dropout if self.training else 0.0
        query, key, value = heads
        if not need_weights:
            return scaled_dot_product_attention(query, key, value, mask, dropped, scale=scale), None
        scores = query * scale @ key.transpose(-2, -1)
        weights = dropout((scores if mask is None else scores + mask).softmax(-1), dropped)
        return weights @ value, weights.mean(1) if average else weights


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, float("-inf"))


def follow_(module: nn.Module) -> None:
    """Turns torch's attention into ours once its weights are cut, in place."""
    assert isinstance(module, nn.MultiheadAttention), "the table of layers asks for it"
    plain = module.bias_k is None and module.bias_v is None and not module.add_zero_attn
    if plain and type(module) is nn.MultiheadAttention:
        module.__class__ = PrunedMultiheadAttention
        module._qkv_same_embed_dim = (
            False  # keeps encoder layers from torch's fused kernel, which wants full width
        )
