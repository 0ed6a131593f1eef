import pytest
import torch
from torch import nn

import sdk
from sdk.errors import QualityError


class Saturating(nn.Module):
    """Activations near 1e5 between two norms: harmless in fp32, infinite in fp16."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.big = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 4)
        nn.init.normal_(self.big.weight, std=3e4)  # each fits into fp16, their sums do not

    def forward(self, x):
        return self.out(self.norm(self.big(self.into(x).abs())))


class Masked(nn.Module):
    """A mask of the lowest float: fp16 makes it minus infinity, and the softmax a zero, as meant."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(8, 8)

    def forward(self, x):
        lowest = torch.finfo(torch.float32).min
        return torch.where(torch.arange(8) < 5, self.score(x), lowest).softmax(-1)


def test_an_overflow_in_fp16_is_seen_on_a_cpu_that_computes_in_fp32(tmp_path):
    torch.manual_seed(0)
    with pytest.raises(QualityError, match="'big'"):
        sdk.export(
            Saturating(), tmp_path / "b", target="openvino", precision="fp16", sample_inputs=torch.randn(4, 8)
        )
    assert not (tmp_path / "b").exists()


def test_repair_computes_the_whole_openvino_program_in_fp32(tmp_path):
    torch.manual_seed(0)
    bundle = sdk.export(
        Saturating(),
        tmp_path / "b",
        target="openvino",
        precision="fp16",
        sample_inputs=torch.randn(4, 8),
        gate=sdk.Gate(repair=True),
    )
    assert bundle.program().precision == "fp32"
    assert bundle.quality(bundle.program()).repaired == ("(the whole program)",)


def test_a_mask_is_no_overflow(tmp_path):
    torch.manual_seed(0)
    bundle = sdk.export(
        Masked(), tmp_path / "b", target="openvino", precision="fp16", sample_inputs=torch.randn(4, 8)
    )
    assert bundle.quality(bundle.program()).verdict == "passed"
