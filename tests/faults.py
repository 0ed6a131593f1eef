"""Faults planted in what a target writes: in the bytes on disk, behind the lowering's back."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sdk_runtimes.feeds import Array

TARGETS = ("onnx", "openvino", "coreml", "tensorrt")

Damage = Callable[[Path, Sequence[str]], None]
"""(folder, files that were written)."""


class Net(nn.Module):
    """(B, 16) to two results of (B, 16); all weights square, so that a transposed one still fits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return {"state": x, "logits": self.head(x)}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.mix = nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.norm(x))


def net() -> tuple[Net, tuple[Tensor]]:
    """The network with a sample; the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval(), (torch.randn(4, 16),)


def plant(monkeypatch: pytest.MonkeyPatch, target: str, damage: Damage) -> None:
    """Makes a target write what it always writes, and then damages the files."""
    module = importlib.import_module(f"sdk_export.targets.{target}")
    write = module.write

    def write_and_damage(captured: Any, precision: str, folder: Path) -> tuple[str, ...]:
        files: tuple[str, ...] = write(captured, precision, folder)
        damage(folder, files)
        return files

    monkeypatch.setattr(module, "write", write_and_damage)


@dataclass(frozen=True)
class Weight:
    """Replaces a weight in the shipped bytes, whichever way round the target stores it."""

    old: Array
    new: Array

    def __call__(self, folder: Path, files: Sequence[str]) -> None:
        hits = 0
        for path in (folder / file for file in files):
            data = path.read_bytes()
            for before, after in ((self.old, self.new), (self.old.T, self.new.T)):
                if _raw(before) in data:
                    hits += 1
                    path.write_bytes(data.replace(_raw(before), _raw(after)))
                    break
        assert hits, "the weight is not in the files: nothing was damaged"


def _raw(array: Array) -> bytes:
    return np.ascontiguousarray(array, np.float32).tobytes()


def scaled(module: nn.Linear, factor: float = 1.5) -> Weight:
    weight = module.weight.detach().numpy().copy()
    return Weight(weight, weight * np.float32(factor))


def transposed(module: nn.Linear) -> Weight:
    weight = module.weight.detach().numpy().copy()
    return Weight(weight, weight.T.copy())
