"""The verb `forget`: hands over to the stage."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sdk_runtimes.require import require_installed

if TYPE_CHECKING:
    from torch import nn

    from sdk_pruning.forgetting.forget import ForgetResult
    from sdk_pruning.forgetting.labelled import Data

Progress = Callable[[str, int, int], None]


def forget(
    model: "nn.Module",
    forget_data: "Data",
    retain_data: "Data",
    *,
    method: str = "ridge",
    strength: float | None = None,
    layers: Sequence[str] | int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> "ForgetResult":
    """Suppresses classes of a classifier without training, and reports honestly what is left of them.

    The network stops naming the classes; what it knows of them stays inside, and the report says how much: a
    linear probe, re-estimated batch norms, and beside them the logit mask, which costs nothing. Half of every
    class is held out to measure on. `sdk_pruning.forgetting.forget.forget_` edits in place.

    Args:
        model: an `nn.Module` that gives logits (B, classes); it stays as it was.
        forget_data: batches of (inputs, labels), labels int64 (B,), of the classes to suppress: a list, a
            loader, a generator, or one such pair.
        retain_data: the same of the other classes.
        method: "ridge", a closed form on the last layers; or "fidelity", ModHiFi-U, which zeroes kernels, or
            negates them in networks with layer norms.
        strength: of "ridge": the weight of forgotten samples, 1 by default; of "fidelity": the share of
            kernels that go, chosen by trial by default.
        layers: module names, or how many of the last layers; by default the last 2 ("ridge"), or the last 12
            before the classifier ("fidelity").
        seed: of the split into halves.
        progress: called with (stage, done, total).

    Returns:
        `model`, the edited copy, and `report`, which prints as a table.

    Raises:
        MissingExtraError: torch is not installed; names the pip line.
        UnknownChoiceError: an unknown method or layer; lists the known ones.
        ArgumentError: data that is empty, broken or overlapping; a strength out of range.
        WeightsError: the network holds NaN or Inf.
        PruningError: a network that cannot be edited so: shared or tied layers, no logits, no copy.
    """
    require_installed("torch", needed_for="sdk.forget")
    from sdk_pruning.forgetting.forget import forget as forget_classes

    return forget_classes(
        model,
        forget_data,
        retain_data,
        method=method,
        strength=strength,
        layers=layers,
        seed=seed,
        progress=progress,
    )
