"""Every operation that coremltools gets wrong or does not know: the package must compute what torch does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdk_export.targets import coreml
from sdk_runtimes.specs import ProgramSpec
from unit.export.captures import capture

torch.set_num_threads(1)
LINES = torch.linspace(-4, 4, 24).reshape(3, 8)
OTHER = torch.linspace(3, -1.5, 24).reshape(3, 8)
IMAGE = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
BATCH = {0: torch.export.Dim("batch", min=1, max=8)}

Case = tuple[Callable[..., Any], tuple[Tensor, ...]]

SILENT: dict[str, Case] = {
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), (LINES,)),
    "alpha of add": (lambda x, y: torch.add(x, y, alpha=2.5), (LINES, OTHER)),
    "alpha of sub": (lambda x, y: torch.sub(x, y, alpha=0.3), (LINES, OTHER)),
    "epsilon of reciprocal": (lambda x: 1 / x, (LINES * 1e-3,)),
    "epsilon of rsqrt": (lambda x: torch.rsqrt(x.abs() * 1e-10), (LINES,)),
    "threshold of softplus": (lambda x: F.softplus(x, beta=2.0, threshold=3.0), (LINES,)),
    "argmax of everything": (lambda x: x.argmax(), (LINES.flip(0),)),
    "argmin of everything": (lambda x: x.argmin(), (LINES,)),
    "attention that sees nothing": (
        lambda q, mask: F.scaled_dot_product_attention(q, q, q, attn_mask=mask),
        (IMAGE, torch.ones(6, 6).tril(-1).bool()),
    ),
    "epsilon of rms_norm": (lambda x: F.rms_norm(x, (8,), eps=1e-6), (LINES * 1e-4,)),
}
LOUD: dict[str, Case] = {
    "rsub with alpha": (lambda x: torch.rsub(x, 3.0, alpha=2.0), (LINES,)),
    "one minus": (lambda x: 1 - x, (LINES,)),
    "log_sigmoid": (F.logsigmoid, (LINES,)),
    "asinh": (torch.asinh, (LINES,)),
    "acosh": (torch.acosh, (LINES + 6,)),
    "trunc": (torch.trunc, (LINES,)),
    "fmod": (torch.fmod, (LINES, OTHER)),
    "fmod by a number": (lambda x: torch.fmod(x, 1.5), (LINES,)),
    "isinf": (lambda x: torch.isinf(1 / x), (torch.tensor([0.0, 2.0]),)),
    "var_mean": (lambda x: torch.var_mean(x, (0,), correction=0, keepdim=True), (LINES,)),
    "where with a number first": (F.hardshrink, (LINES,)),
    "where with a number last": (lambda x: torch.where(x > 0, x, -1), (LINES,)),
    "cosine_similarity": (lambda x, y: F.cosine_similarity(x, y, -1), (LINES, OTHER)),
    "or of booleans": (lambda x, y: (x > 0) | (y > 0), (LINES, OTHER)),
    "xor of booleans": (lambda x, y: (x > 0) ^ (y > 0), (LINES, OTHER)),
    "rms_norm without epsilon": (nn.RMSNorm(8), (LINES,)),
    "max_pool1d without stride": (lambda x: F.max_pool1d(x, 2), (IMAGE[0],)),
    "max_pool2d without stride": (lambda x: F.max_pool2d(x, 2), (IMAGE,)),
    "group_norm": (nn.GroupNorm(2, 4), (IMAGE,)),
    "matrix by vector": (torch.matmul, (LINES, OTHER[0])),
    "vector by matrix": (torch.matmul, (OTHER[0], LINES.T)),
    "vector by vector": (torch.matmul, (OTHER[0], LINES[0])),
    "grouped attention": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True),
        (IMAGE, IMAGE[:, :2, :5]),
    ),
    "output padding": (
        lambda x, w: F.conv_transpose2d(x, w, stride=3, output_padding=2),
        (IMAGE, torch.ones(4, 2, 3, 3)),
    ),
    "circular padding": (lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"), (IMAGE,)),
    "negative padding": (lambda x: F.pad(x, (-1, 2), value=1.5), (IMAGE,)),
    "windows": (lambda x: x.unfold(-1, 3, 2), (IMAGE,)),
    "permutation of six axes": (
        lambda x: x.reshape(2, 2, 2, 3, 2, 4, 2).permute(5, 0, 3, 6, 1, 4, 2).reshape(8, -1),
        (IMAGE,),
    ),
    "einsum of six axes": (
        lambda x: torch.einsum("nhwpqc->nchpwq", x.reshape(2, 4, 2, 3, 2, 4)).reshape(2, 16, 12),
        (IMAGE,),
    ),
    "bicubic": (lambda x: F.interpolate(x, size=(9, 11), mode="bicubic"), (IMAGE,)),
}
DYNAMIC: dict[str, Case] = {
    "group_norm": (nn.GroupNorm(2, 4), (IMAGE,)),
    "area resize": (lambda x: F.interpolate(x, size=(4, 5), mode="area"), (IMAGE,)),
    "unpatchify": (
        lambda x: x.reshape(-1, 2, 3, 2, 4, 4).permute(0, 5, 1, 3, 2, 4).reshape(-1, 4, 4, 12),
        (IMAGE,),
    ),
}


class Wrapped(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


def check(case: Case, folder, **options: Any) -> None:
    function, tensors = case
    captured = capture(Wrapped(function).eval(), tensors, **options)
    files = coreml.write(captured, "fp32", folder)
    spec = ProgramSpec("net", "coreml", "fp32", captured.inputs, captured.outputs, files)
    for count in (2, 1, 3) if options else (None,):
        feeds = {
            name: array if count is None else np.repeat(array[:1], count, 0) * 0.7
            for name, array in captured.samples.items()
        }
        got, truth = coreml.replay(folder / files[0], spec, feeds), captured.reference(feeds)
        for name, array in truth.items():
            assert got[name].dtype == array.dtype
            scale = np.abs(array[np.isfinite(array)]).max() if array.dtype.kind == "f" else 1
            np.testing.assert_allclose(got[name], array, rtol=2e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("name", SILENT)
def test_a_silent_error_of_coremltools_is_fixed(name, tmp_path):
    check(SILENT[name], tmp_path)


@pytest.mark.parametrize("name", LOUD)
def test_what_coremltools_refuses_is_taken_apart(name, tmp_path):
    check(LOUD[name], tmp_path)


@pytest.mark.parametrize("name", DYNAMIC)
def test_what_coremltools_refuses_with_a_dynamic_batch_is_taken_apart(name, tmp_path):
    check(DYNAMIC[name], tmp_path, dynamic_shapes=((BATCH,),))


@pytest.mark.parametrize(
    "name", ["gelu by tanh", "alpha of add", "epsilon of reciprocal", "epsilon of rms_norm"]
)
def test_without_the_fixes_the_error_is_silent(name, tmp_path, monkeypatch):
    """coremltools as it is: when this fails, it was mended, and the fix can go."""
    import sdk_export.targets.coreml_lowering as lowering

    monkeypatch.setattr(lowering, "FIXES", {})
    with pytest.raises(AssertionError):
        check(SILENT[name], tmp_path)


def test_scale_and_shift_are_exact_in_fp32(tmp_path, monkeypatch):
    """`x * a + b` becomes a batch_norm with epsilon 1e-5 unless we drop that pass."""
    import sdk_export.targets.coreml_fixes as fixes

    scale, shift = torch.rand(4, 1, 1) + 1, torch.rand(4, 1, 1)
    case = (lambda x: x * scale + shift, (IMAGE,))
    check(case, tmp_path / "exact")
    monkeypatch.setattr(fixes, "INEXACT_PASSES", frozenset())
    with pytest.raises(AssertionError):
        check(case, tmp_path / "inexact")
