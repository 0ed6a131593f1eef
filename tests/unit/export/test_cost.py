"""FLOPs equal the closed form; activations are what must be alive at once."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdk_export.capture import capture
from sdk_export.cost import cost_of


def cost(model: nn.Module, *inputs: Tensor, **options: object):
    return cost_of(capture(model, sample_inputs=inputs, **options))


@pytest.mark.parametrize(("batch", "wide", "narrow"), [(1, 8, 4), (5, 3, 7)])
def test_a_linear_layer_is_two_a_multiply_add(batch, wide, narrow):
    assert cost(nn.Linear(wide, narrow), torch.zeros(batch, wide)).flops == 2 * batch * wide * narrow


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution(groups, stride):
    B, C, M, H, W, K = 2, 4, 8, 9, 7, 3
    conv = nn.Conv2d(C, M, K, stride=stride, padding=1, groups=groups)
    out_h, out_w = -(-H // stride), -(-W // stride)
    assert cost(conv, torch.zeros(B, C, H, W)).flops == 2 * B * M * out_h * out_w * C // groups * K * K


def test_attention_is_two_products():
    class Attention(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v)

    B, H, L, S, D = 2, 3, 5, 7, 4
    q, k = torch.randn(B, H, L, D), torch.randn(B, H, S, D)
    assert cost(Attention(), q, k, k.clone()).flops == 2 * (2 * B * H * L * S * D)


def test_elementwise_work_is_not_counted():
    assert cost(nn.Sequential(nn.ReLU(), nn.Softmax(-1)), torch.zeros(4, 4)).flops == 0


def test_dynamic_axes_count_at_the_samples_size():
    dims = {"input": {0: ("batch", 1, 64)}}
    fixed = cost(nn.Linear(8, 4), torch.zeros(5, 8))
    assert cost(nn.Linear(8, 4), torch.zeros(5, 8), dynamic_shapes=dims) == fixed
    assert cost(nn.Linear(8, 4), torch.zeros(10, 8), dynamic_shapes=dims).flops == 2 * fixed.flops


def test_an_axis_in_steps_counts_at_the_samples_size():
    rows = torch.export.Dim("rows", min=2, max=16)
    found = cost(nn.Linear(8, 4), torch.zeros(12, 8), dynamic_shapes={"input": {0: 4 * rows}})
    assert found.flops == 2 * 12 * 8 * 4


def test_sizes_that_depend_on_the_data_do_not_break_the_count():
    class Listing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nonzero(x @ x)

    assert cost(Listing(), torch.ones(4, 4)).flops == 2 * 4**3


SIZE = 4 * 16 * 16  # bytes of one fp32 tensor below


def test_a_chain_holds_two_tensors_at_once_however_long_it_is():
    layers = [nn.Tanh() for _ in range(6)]
    assert cost(nn.Sequential(*layers), torch.zeros(16, 16)).activations_bytes == 2 * SIZE


def test_a_residual_lives_until_it_is_added():
    class Residual(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.tanh().sigmoid()

    assert cost(Residual(), torch.zeros(16, 16)).activations_bytes == 3 * SIZE


def test_views_take_no_memory():
    class Viewing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(256).view(4, 64).t()[1:].tanh()

    peak = cost(Viewing(), torch.zeros(16, 16)).activations_bytes
    assert peak == SIZE + SIZE * 63 // 64


def test_weights_are_no_activations():
    small, large = (cost(nn.Linear(n, 2, bias=False), torch.zeros(1, n)) for n in (4, 64))
    assert large.activations_bytes == 4 * (64 + 2)
    assert small.activations_bytes == 4 * (4 + 2)


def test_dtypes_count_at_their_size():
    class Casting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x > 0

    assert cost(Casting(), torch.zeros(16, 16)).activations_bytes == SIZE + SIZE // 4
