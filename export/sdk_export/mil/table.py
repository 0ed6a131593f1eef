"""Every operation the evaluator knows: its type and the function that computes it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sdk_export.mil.ops import (
    activation,
    conv,
    elementwise,
    gather,
    linear,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduction,
    resize,
    shape,
    slicing,
)

_FAMILIES: tuple[Mapping[str, Callable[..., Any]], ...] = (
    activation.OPS,
    conv.OPS,
    elementwise.OPS,
    gather.OPS,
    linear.OPS,
    normalization.OPS,
    pooling.OPS,
    quantized.OPS,
    recurrent.OPS,
    reduction.OPS,
    resize.OPS,
    shape.OPS,
    slicing.OPS,
)

OPS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {name: function for family in _FAMILIES for name, function in family.items()}
)
