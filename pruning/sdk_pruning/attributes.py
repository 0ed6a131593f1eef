"""Numbers that modules keep beside their weights: they must follow when the weights shrink."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sdk_pruning.changes import Reset
from sdk_pruning.multihead import follow_

Sizes = Mapping[str, int]

_HEADS = (
    "heads", "n_head", "n_heads", "nhead", "nheads", "num_attention_heads", "num_head", "num_heads",
    "num_q_heads", "n_local_heads", "local_heads", "num_query_heads",
    "kv_heads", "n_kv_head", "n_kv_heads", "num_key_value_heads", "num_kv_heads", "n_local_kv_heads",
)  # fmt: skip
_DIMS = (
    "attention_head_size", "d_head", "d_k", "d_kv", "d_v", "dim_head", "dim_per_head", "head_dim",
    "head_size", "head_width", "key_dim", "value_dim", "v_head_dim", "qk_head_dim",
)  # fmt: skip
_INNER = (
    "all_head_size", "attn_dim", "attention_dim", "inner_dim", "inner_size", "inner_kv_dim", "kv_dim",
    "kv_size", "q_dim", "q_size", "qkv_dim",
)  # fmt: skip
_WIDTHS = (
    "embed_dim", "hidden_size", "hidden_dim", "dim", "d_model", "n_embd", "width", "channels", "embed_size",
    "num_channels", "in_channels", "out_channels", "c", "n_state", "model_dim", "embedding_dim",
)  # fmt: skip

_OF_DIMS = ((), _DIMS, (*_DIMS, *_INNER), (*_DIMS, *_INNER, *_WIDTHS))
NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "heads": (_HEADS, (*_HEADS, *_INNER), (*_HEADS, *_INNER, *_WIDTHS)),
    "dims": _OF_DIMS,
    "values": _OF_DIMS,
}
"""role -> attributes that shrink with it, the likeliest set first. Which one a module needs is found by
trying: pruned and masked network must agree."""


def shrunk(model: nn.Module, module: str, names: tuple[str, ...], kept: int, units: int) -> list[Reset]:
    """The attributes of a module that shrink when `kept` of `units` stay."""
    owner = model.get_submodule(module)
    changes = []
    for name in names:
        value = vars(owner).get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value % units == 0 and value > 0:
            changes.append(Reset(module, name, value // units * kept))
    return changes


def follow_weights_(module: nn.Module, groups: int | None) -> None:
    """Sets the sizes that a layer of torch keeps beside its weights, from the weights, in place.

    Args:
        module: that owns the changed tensors.
        groups: how many groups it has now, None where it has none.
    """
    for kind, follow in _LAYERS.items():
        if isinstance(module, kind):
            follow(module, groups)
            return


def _linear(module: nn.Module, _groups: int | None) -> None:
    _set(module, out_features=_weight(module)[0], in_features=_weight(module)[1])


def _convolution(module: nn.Module, groups: int | None) -> None:
    count = groups or _number(module.groups)
    outputs, inputs = _weight(module)[:2]
    _set(module, groups=count, out_channels=outputs, in_channels=inputs * count)


def _transposed(module: nn.Module, groups: int | None) -> None:
    count = groups or _number(module.groups)
    inputs, outputs = _weight(module)[:2]
    _set(module, groups=count, out_channels=outputs * count, in_channels=inputs)


def _batch_norm(module: nn.Module, _groups: int | None) -> None:
    _set(module, num_features=next(one.shape[0] for one in module.state_dict().values() if one.ndim))


def _group_norm(module: nn.Module, groups: int | None) -> None:
    _set(module, num_groups=groups or _number(module.num_groups), num_channels=_weight(module)[0])


def _embedding(module: nn.Module, _groups: int | None) -> None:
    _set(module, embedding_dim=_weight(module)[1])


def _prelu(module: nn.Module, _groups: int | None) -> None:
    _set(module, num_parameters=_weight(module)[0])


def _set(module: nn.Module, **sizes: int) -> None:
    for name, size in sizes.items():
        setattr(module, name, size)


def _weight(module: nn.Module) -> torch.Size:
    assert isinstance(module.weight, Tensor), "the table below names layers that have a weight"
    return module.weight.shape


def _number(value: object) -> int:
    assert isinstance(value, int), "torch keeps counts as numbers"
    return value


def _multihead(module: nn.Module, _groups: int | None) -> None:
    follow_(module)


_LAYERS: Mapping[type[nn.Module], Callable[[nn.Module, int | None], None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _transposed,
    nn.ConvTranspose2d: _transposed,
    nn.ConvTranspose3d: _transposed,
    nn.modules.batchnorm._NormBase: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
    nn.MultiheadAttention: _multihead,
}
