"""The contract suite's networks: small, seeded, and built as the real ones are. One file a family."""

from networks import (
    atconv,
    cnn,
    dit,
    kv_cache,
    linear_attention,
    mlp,
    recurrent,
    rope,
    scan,
    structured,
    text,
    unet,
    var,
    vit,
)
from networks.cases import Case, Inputs

__all__ = ["CASES", "Case", "Inputs"]

_FAMILIES = (
    atconv,
    cnn,
    dit,
    kv_cache,
    linear_attention,
    mlp,
    recurrent,
    rope,
    scan,
    structured,
    text,
    unet,
    var,
    vit,
)

CASES: dict[str, Case] = {case.name: case for family in _FAMILIES for case in family.CASES}
