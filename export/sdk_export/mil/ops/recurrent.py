"""Recurrent layers: x is (steps, batch, features); weights are (gates * hidden, features)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sdk_export.mil.weights import Array

_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "scaled_tanh": lambda x: 1.7159 * np.tanh(x * 2 / 3),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sigmoid_hard": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "tanh": np.tanh,
}


def _sequence(states: list[Array], direction: str, output_sequence: Any) -> Array:
    """Hidden states in the order of time, or the last computed one alone."""
    if not bool(output_sequence):
        return states[-1][None]
    return np.stack(states[::-1] if direction == "reverse" else states)


def rnn(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    direction: str = "forward",
    output_sequence: Any = False,
    activation: str = "tanh",
) -> tuple[Array, Array]:
    """h_t = activation(W_ih x_t + W_hh h_{t-1} + bias)."""
    h, states = initial_h, []
    for step in x[::-1] if direction == "reverse" else x:
        h = _ACTIVATIONS[activation](step @ weight_ih.T + h @ weight_hh.T + (0 if bias is None else bias))
        states.append(h)
    return _sequence(states, direction, output_sequence), h


def gru(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    direction: str = "forward",
    output_sequence: Any = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: Any = False,
    input_bias: Array | None = None,
) -> tuple[Array, Array]:
    """Gated recurrent unit, gates in the order reset, output, update.

    r = s(W_ir x + W_hr h + b_r), z likewise, h' = (1 - z) * o + z * h. The output gate is
    o = a(W_io x + W_ho (r * h) + b_o), or with `reset_after` o = a(W_io x + b_io + r * (W_ho h + b_o)).
    """
    hidden, h, states = initial_h.shape[-1], initial_h, []
    gate, out = _ACTIVATIONS[recurrent_activation], _ACTIVATIONS[activation]
    offset = np.zeros(3 * hidden, x.dtype) if bias is None else bias
    outer = np.zeros(3 * hidden, x.dtype) if input_bias is None else input_bias
    middle = slice(hidden, 2 * hidden)
    for step in x[::-1] if direction == "reverse" else x:
        inner = step @ weight_ih.T + outer
        looped = h @ weight_hh.T + offset
        r = gate(inner[:, :hidden] + looped[:, :hidden])
        z = gate(inner[:, 2 * hidden :] + looped[:, 2 * hidden :])
        if bool(reset_after):
            o = out(inner[:, middle] + r * looped[:, middle])
        else:
            o = out(inner[:, middle] + (r * h) @ weight_hh[middle].T + offset[middle])
        h = (1 - z) * o + z * h
        states.append(h)
    return _sequence(states, direction, output_sequence), h


def _lstm_one_way(
    x: Array,
    h: Array,
    c: Array,
    weights: tuple[Array, Array],
    bias: Array | None,
    peephole: Array | None,
    activations: tuple[str, str, str],
    clip: Any,
) -> tuple[list[Array], Array]:
    """One direction, gates in the order input, forget, output, cell; hidden states and the last cell."""
    gate, cell, out = (_ACTIVATIONS[name] for name in activations)
    p_i, p_f, p_o = np.split(np.zeros(3 * h.shape[-1], x.dtype) if peephole is None else peephole, 3)
    states = []
    for step in x:
        i, f, o, z = np.split(step @ weights[0].T + h @ weights[1].T + (0 if bias is None else bias), 4, -1)
        c_new = gate(f + p_f * c) * c + gate(i + p_i * c) * cell(z)
        c = c_new if clip is None else np.clip(c_new, -float(clip), float(clip))
        h = gate(o + p_o * c) * out(c)
        states.append(h)
    return states, c


def lstm(
    x: Array,
    initial_h: Array,
    initial_c: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    peephole: Array | None = None,
    weight_ih_back: Array | None = None,
    weight_hh_back: Array | None = None,
    bias_back: Array | None = None,
    peephole_back: Array | None = None,
    direction: str = "forward",
    output_sequence: Any = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: Any = None,
) -> tuple[Array, Array, Array]:
    """Long short-term memory: sequence, last hidden state, last cell state.

    Both ways at once, forward is the first half of the last axis of every state and result.
    """
    activations = (recurrent_activation, cell_activation, activation)
    if direction != "bidirectional":
        ordered = x[::-1] if direction == "reverse" else x
        states, c = _lstm_one_way(
            ordered, initial_h, initial_c, (weight_ih, weight_hh), bias, peephole, activations, clip
        )
        return _sequence(states, direction, output_sequence), states[-1], c
    assert weight_ih_back is not None
    assert weight_hh_back is not None
    (h_f, h_b), (c_f, c_b) = np.split(initial_h, 2, -1), np.split(initial_c, 2, -1)
    ahead, c_ahead = _lstm_one_way(x, h_f, c_f, (weight_ih, weight_hh), bias, peephole, activations, clip)
    back, c_back = _lstm_one_way(
        x[::-1], h_b, c_b, (weight_ih_back, weight_hh_back), bias_back, peephole_back, activations, clip
    )
    both = np.concatenate(
        [_sequence(ahead, "forward", output_sequence), _sequence(back, "reverse", output_sequence)], -1
    )
    last = np.concatenate([ahead[-1], back[-1]], -1)
    return both, last, np.concatenate([c_ahead, c_back], -1)


OPS: Mapping[str, Callable[..., tuple[Array, ...]]] = {"gru": gru, "lstm": lstm, "rnn": rnn}
