"""Recurrent operations of the evaluator against torch."""

import numpy as np
import pytest
import torch
from torch import nn

from sdk_export.mil.table import OPS
from unit.export.mil.op_cases import noise, t

torch.set_num_threads(1)


def lstm_weights(module: nn.LSTM, suffix: str = "") -> dict[str, np.ndarray]:
    def ordered(array: torch.Tensor) -> np.ndarray:  # torch i, f, z, o; MIL i, f, o, z
        i, f, z, o = array.detach().chunk(4)
        return torch.cat([i, f, o, z]).numpy()

    bias = getattr(module, f"bias_ih_l0{suffix}") + getattr(module, f"bias_hh_l0{suffix}")
    return {
        "weight_ih": ordered(getattr(module, f"weight_ih_l0{suffix}")),
        "weight_hh": ordered(getattr(module, f"weight_hh_l0{suffix}")),
        "bias": ordered(bias),
    }


def test_lstm_both_ways():
    module = nn.LSTM(8, 5, bidirectional=True)
    x, h, c = noise(3, 2, 8), noise(2, 2, 5), noise(2, 2, 5)
    ahead, back = lstm_weights(module), lstm_weights(module, "_reverse")
    sequence, last_h, last_c = OPS["lstm"](
        x=x,
        initial_h=np.concatenate(list(h), -1),
        initial_c=np.concatenate(list(c), -1),
        direction="bidirectional",
        output_sequence=True,
        **ahead,
        **{f"{key}_back": value for key, value in back.items()},
    )
    with torch.no_grad():
        truth, (truth_h, truth_c) = module(t(x), (t(h), t(c)))
    np.testing.assert_allclose(sequence, truth, atol=1e-6)
    np.testing.assert_allclose(last_h, torch.cat(list(truth_h), -1), atol=1e-6)
    np.testing.assert_allclose(last_c, torch.cat(list(truth_c), -1), atol=1e-6)


def test_gru_with_reset_after_is_torchs():
    module = nn.GRU(8, 5)
    x, h = noise(3, 2, 8), noise(1, 2, 5)

    def ordered(array: torch.Tensor) -> np.ndarray:  # torch r, z, n; MIL r, o, z
        r, z, n = array.detach().chunk(3)
        return torch.cat([r, n, z]).numpy()

    sequence, last = OPS["gru"](
        x=x,
        initial_h=h[0],
        weight_ih=ordered(module.weight_ih_l0),
        weight_hh=ordered(module.weight_hh_l0),
        bias=ordered(module.bias_hh_l0),
        input_bias=ordered(module.bias_ih_l0),
        reset_after=True,
        output_sequence=True,
    )
    with torch.no_grad():
        truth, truth_h = module(t(x), t(h))
    np.testing.assert_allclose(sequence, truth, atol=1e-6)
    np.testing.assert_allclose(last, truth_h[0], atol=1e-6)


def test_gru_by_default_resets_before():
    x, h, w, u = noise(1, 1, 2), noise(1, 2), noise(6, 2), noise(6, 2)
    _, last = OPS["gru"](x=x, initial_h=h, weight_ih=w, weight_hh=u)
    inner = x[0] @ w.T
    looped = h @ u.T
    r, z = (1 / (1 + np.exp(-(inner + looped)[:, part])) for part in (slice(0, 2), slice(4, 6)))
    o = np.tanh(inner[:, 2:4] + (r * h) @ u[2:4].T)
    np.testing.assert_allclose(last, (1 - z) * o + z * h, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_rnn(direction):
    module = nn.RNN(8, 5, nonlinearity="relu")
    x, h = noise(3, 2, 8), noise(1, 2, 5)
    sequence, last = OPS["rnn"](
        x=x,
        initial_h=h[0],
        weight_ih=module.weight_ih_l0.detach().numpy(),
        weight_hh=module.weight_hh_l0.detach().numpy(),
        bias=(module.bias_ih_l0 + module.bias_hh_l0).detach().numpy(),
        direction=direction,
        output_sequence=True,
        activation="relu",
    )
    with torch.no_grad():
        truth, truth_h = module(t(x if direction == "forward" else x[::-1].copy()), t(h))
    np.testing.assert_allclose(sequence, truth if direction == "forward" else truth.flip(0), atol=1e-6)
    np.testing.assert_allclose(last, truth_h[0], atol=1e-6)
