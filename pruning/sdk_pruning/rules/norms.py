"""Normalisation layers."""

import numpy as np

from sdk_pruning.axis_labels import Axis, Labels, equate, freeze
from sdk_pruning.propagation import Counted, Operation, Rule

_TENSORS = ("weight", "bias", "running_mean", "running_var")


def per_channel(operation: Operation) -> Labels:
    """Batch and instance norm: every channel (axis 1) by itself."""
    features: Labels = operation.arguments["input"]
    channels = _with_parameters(operation, features.axis(1))
    _count(operation, "num_features", channels, 1)
    return features.with_axis(1, channels)


def _count(operation: Operation, attribute: str, channels: Axis, each: int) -> None:
    """Of a norm without tensors: nothing that is cut would tell it."""
    bare = all(operation.arguments.get(name) is None for name in _TENSORS)
    if bare and operation.module and len(channels) == 1:
        counted = Counted(operation.module, attribute, channels[0][::each])
        operation.findings.counted.append(counted)


def _with_parameters(operation: Operation, channels: Axis) -> Axis:
    for name in _TENSORS:
        parameter = operation.arguments.get(name)
        if isinstance(parameter, Labels):
            channels = equate(operation.ties, channels, parameter.axis(0), operation.where)
    return channels


def last_axes(operation: Operation) -> Labels:
    """Layer and RMS norm: statistics over the last axes, which therefore stay whole."""
    features: Labels = operation.arguments["input"]
    count = len(operation.arguments["normalized_shape"])
    why = f"{operation.where} normalises over it"
    for axis in features.axes[len(features.axes) - count :]:
        freeze(operation.ties, axis, why)
    for name in ("weight", "bias"):
        parameter = operation.arguments.get(name)
        if isinstance(parameter, Labels):
            operation.ties.freeze(parameter.atoms, why)
    return Labels(features.shape, features.axes)


def groups(operation: Operation) -> Labels:
    """Group norm: the channels of one norm group go together."""
    features: Labels = operation.arguments["input"]
    count = operation.arguments["num_groups"]
    channels = _with_parameters(operation, features.axis(1))
    if len(channels) == 1:
        members = channels[0].reshape(count, -1)
        for row in members:
            operation.ties.tie(row[:-1], row[1:], operation.where)
        _count(operation, "num_channels", channels, 1)
        _count(operation, "num_groups", channels, len(channels[0]) // count)
    else:  # merged axes: one that is the same all over a norm group, such as heads, may go
        for track in channels:
            rows = track.reshape(count, -1)
            if (rows != rows[:, :1]).any():
                operation.ties.freeze(track.tolist(), f"{operation.where} normalises over it")
    for name in ("weight", "bias"):
        parameter = operation.arguments.get(name)
        if isinstance(parameter, Labels) and parameter.source:
            operation.findings.grouped[parameter.source] = count
    for axis in features.axes[2:]:
        freeze(operation.ties, axis, f"{operation.where} normalises over it")
    assert not channels or np.ndim(channels[0]) == 1, "a track is a vector"
    return features.with_axis(1, channels)


RULES: dict[str, Rule] = {
    "batch_norm": per_channel,
    "instance_norm": per_channel,
    "layer_norm": last_axes,
    "rms_norm": last_axes,
    "native_layer_norm": last_axes,
    "group_norm": groups,
}
