"""What a network answers, and what its last layer reads."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdk_pruning.forgetting.editable_layers import evaluating
from sdk_pruning.forgetting.labelled import Labelled
from sdk_pruning.forgetting.moments import CHUNK, device_of
from sdk_runtimes.errors import ArgumentError, PruningError


@dataclass(frozen=True)
class Observed:
    """Of some samples.

    Attributes:
        logits: float64 (B, classes).
        features: what the last layer reads, float64 (B, D); the mean over positions where there are some.
    """

    logits: Tensor
    features: Tensor


def observe(model: nn.Module, last: nn.Module, inputs: Tensor) -> Observed:
    """Runs samples through the network in eval mode.

    Args:
        model: the network.
        last: the linear or convolution layer of it that runs last.
        inputs: (B, ...).

    Raises:
        PruningError: the network does not give logits (B, classes), or gives NaN or Inf.
    """
    features: list[Tensor] = []

    def note(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        features.append(pooled(last, args[0]))

    handle = last.register_forward_pre_hook(note)
    try:
        logits = logits_of(model, inputs)
    finally:
        handle.remove()
    return Observed(logits, torch.cat(features).cpu())


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the network answers in eval mode, float64 (B, classes) on the CPU.

    Raises:
        PruningError: it does not give logits (B, classes), or gives NaN or Inf.
    """
    device = device_of(model)
    with evaluating(model):
        return torch.cat(
            [_checked(model(chunk.to(device)), len(chunk)) for chunk in torch.split(inputs, CHUNK)]
        )


def accuracy(model: nn.Module, data: Labelled) -> float:
    """Share of samples whose highest logit is their class."""
    return share_right(logits_of(model, data.inputs), data.labels)


def share_right(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose maximum is at their label."""
    return float((logits.argmax(1) == labels).double().mean())


def pooled(last: nn.Module, read: Tensor) -> Tensor:
    """What the last layer reads, (B, ...) to float64 (B, channels): the mean over positions or tokens."""
    channels = read if isinstance(last, nn.Linear) else read.movedim(1, -1)
    return channels.double().flatten(1, -2).mean(1) if channels.ndim > 2 else channels.double()


def check_labels(logits: Tensor, data: Labelled, what: str) -> None:
    """Refuses classes that the network does not have.

    Raises:
        ArgumentError: a label at or above the number of logits.
    """
    if data.classes[-1] >= logits.shape[1]:
        raise ArgumentError(
            f"{what} has class {data.classes[-1]}, the network {logits.shape[1]} logits",
            why="a label is the index of a logit, counted from 0",
            fix="map the labels to the network's classes",
        )


def _checked(output: object, samples: int) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != samples:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PruningError(
            f"the network gives {shape} for {samples} samples",
            why="accuracy is read off logits (B, classes)",
            fix="wrap it in a module whose forward returns the logits alone",
        )
    if not torch.isfinite(output).all():
        raise PruningError(
            "the network gives logits that are NaN or Inf",
            why="its weights are broken, or the inputs are far from what it was trained on",
            fix="check weights and preprocessing",
        )
    return output.double().cpu()
