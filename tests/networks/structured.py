"""Interfaces: nested and keyword-only inputs, dataclass and mapping outputs, integers and bools."""

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from networks.cases import Case, Inputs, integers, noise, seeded


@dataclass
class Prediction:
    """A plain dataclass that nobody registered with pytree: what most users write."""

    logits: Tensor
    box: Tensor


@dataclass
class EncoderOutput(OrderedDict[str, Any]):
    """Shaped as transformers' ModelOutput: a dataclass, a mapping of its set fields, a pytree of its own."""

    last_hidden_state: Tensor | None = None
    pooled: Tensor | None = None
    attentions: Tensor | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)


def _unflatten(values: Any, context: list[str]) -> EncoderOutput:
    return EncoderOutput(**dict(zip(context, values, strict=True)))


pytree.register_pytree_node(
    EncoderOutput,
    lambda output: (list(output.values()), list(output.keys())),
    _unflatten,
    serialized_type_name="networks.structured.EncoderOutput",
)


class Fusion(nn.Module):
    """Joins a dict of views, a tuple of maps and a keyword-only gate."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, width), nn.Linear(6, width)
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.logits, self.box = nn.Linear(width, 5), nn.Linear(width, 4)

    def fuse(self, views: dict[str, Tensor], maps: tuple[Tensor, Tensor], gate: Tensor) -> Tensor:
        image, heat = maps
        seen = (self.conv(image) * heat).mean((2, 3))
        return torch.relu(self.left(views["left"]) + self.right(views["right"]) * gate + seen)


class NestedInputs(Fusion):
    """views {left (B, 8), right (B, 6)}, maps ((B, 3, 8, 8), (B, 1, 8, 8)), gate (B, 1): a tuple of two."""

    def forward(
        self, views: dict[str, Tensor], maps: tuple[Tensor, Tensor], *, gate: Tensor
    ) -> tuple[Tensor, Tensor]:
        h = self.fuse(views, maps, gate)
        return self.logits(h), self.box(h).sigmoid()


class PlainDataclass(Fusion):
    """The same, given back as a dataclass that torch.export does not know."""

    def forward(self, views: dict[str, Tensor], maps: tuple[Tensor, Tensor], *, gate: Tensor) -> Prediction:
        h = self.fuse(views, maps, gate)
        return Prediction(logits=self.logits(h), box=self.box(h).sigmoid())


class ModelOutputEncoder(nn.Module):
    """(B, L, 8) to an EncoderOutput with one field unset."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            8, 2, 16, batch_first=True, norm_first=True, activation="gelu"
        )
        self.pool = nn.Linear(8, 8)

    def forward(self, states: Tensor) -> EncoderOutput:
        hidden = self.layer(states)
        return EncoderOutput(last_hidden_state=hidden, pooled=torch.tanh(self.pool(hidden[:, 0])))


class IntegersAndBools(nn.Module):
    """Scores what passes a threshold, and says what and where: float, int64, int32 and bool on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 12)
        self.score = nn.Linear(12, 6)

    def forward(self, ids: Tensor, keep: Tensor, offset: Tensor, threshold: Tensor) -> dict[str, Tensor]:
        rows = self.table((ids + offset.to(torch.int64)) % 20)
        scores = torch.where(keep.unsqueeze(-1), self.score(rows), torch.full((), -1.0))
        passed = scores > threshold
        return {
            "scores": scores,
            "best": scores.argmax(-1),
            "passed": passed,
            "any": passed.any(-1) & keep,
            "count": passed.sum(-1, dtype=torch.int32),
            "shifted": ids * 2 - offset,
            "one_hot": F.one_hot(ids.clamp(0, 3), 4).to(torch.bool),
        }


def _fusion_inputs(batch: int) -> Inputs:
    views = {"left": noise(batch, 8), "right": noise(batch, 6, seed=1)}
    maps = (noise(batch, 3, 8, 8, seed=2), noise(batch, 1, 8, 8, seed=3))
    return Inputs((views, maps), {"gate": noise(batch, 1, seed=4)})


def _integer_inputs(batch: int) -> Inputs:
    keep = integers(2, batch, 5, seed=1).to(torch.bool)
    return Inputs((integers(20, batch, 5), keep, torch.tensor([3], dtype=torch.int32), torch.tensor(0.2)))


_BATCH = torch.export.Dim("batch", min=1, max=8)
_FUSION: dict[str, Any] = {
    "sample": {"batch": 2},
    "dynamic_shapes": {
        "views": {"left": {0: _BATCH}, "right": {0: _BATCH}},
        "maps": ({0: _BATCH}, {0: _BATCH}),
        "gate": {0: _BATCH},
    },
    "sizes": ({"batch": 1}, {"batch": 3}, {"batch": 8}),
}

CASES = (
    Case("nested_inputs", seeded(NestedInputs), _fusion_inputs, **_FUSION),
    Case("plain_dataclass", seeded(PlainDataclass), _fusion_inputs, **_FUSION),
    Case(
        "model_output",
        seeded(ModelOutputEncoder),
        lambda batch, length: Inputs((noise(batch, length, 8),)),
        sample={"batch": 2, "length": 5},
        dynamic_shapes={"states": {0: _BATCH, 1: torch.export.Dim("length", min=2, max=32)}},
        sizes=({"batch": 1, "length": 2}, {"batch": 3, "length": 9}, {"batch": 8, "length": 32}),
    ),
    Case(
        "integers_and_bools",
        seeded(IntegersAndBools),
        _integer_inputs,
        sample={"batch": 2},
        dynamic_shapes={"ids": {0: _BATCH}, "keep": {0: _BATCH}, "offset": None, "threshold": None},
        sizes=({"batch": 1}, {"batch": 3}, {"batch": 8}),
    ),
)
