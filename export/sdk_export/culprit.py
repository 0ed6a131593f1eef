"""Finds the first module whose output, in the shipped bytes, is not what eager computes.

The truth is recorded by forward hooks; the shipped value is the last one in the file that comes from that
module. Both are asked for on the very input that failed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sdk_export.captured import Arrays, Captured
from sdk_runtimes.errors import SdkError
from sdk_runtimes.feeds import Array
from sdk_runtimes.manifest import Tolerance
from sdk_runtimes.quality import Deviation, compare

Tap = Callable[[Arrays, Sequence[str]], Mapping[str, Array]]
"""Feeds and names of inner values to what the shipped bytes compute for them; unknown names left out."""


@dataclass(frozen=True)
class Culprit:
    """The first module that diverges.

    Attributes:
        module: its path.
        kind: its class.
        deviation: of its output.
    """

    module: str
    kind: str
    deviation: Deviation

    def __str__(self) -> str:
        seen = self.deviation
        figure = f"rel. RMSE {seen.rel_rmse:.3g}" if seen.finite else "NaN or Inf"
        return f"the first module that diverges is {self.module!r} ({self.kind}): {figure}"


def find_culprit(
    captured: Captured, values: Mapping[str, str], tap: Tap, feeds: Arrays, tolerance: Tolerance
) -> Culprit | None:
    """Bisects over module outputs.

    Args:
        captured: the network; its reference must be a module.
        values: module path -> name of its last value in the shipped file.
        tap: reads inner values of the shipped file.
        feeds: the inputs that failed.
        tolerance: what the program is held to.

    Returns:
        None when no module can be told: the file keeps too few names.
    """
    truths = module_outputs(captured, feeds)
    wanted = {path: values[path] for path, _, _ in truths if path in values}
    try:
        got = tap(feeds, sorted(set(wanted.values())))
    except SdkError:
        return None
    seen = [
        Culprit(path, kind, compare(truth, got[wanted[path]].astype(truth.dtype)))
        for path, kind, truth in truths
        if path in wanted and wanted[path] in got and got[wanted[path]].shape == truth.shape
    ]
    return next((item for item in seen if not item.deviation.within(tolerance)), None)


def module_outputs(captured: Captured, feeds: Arrays) -> list[tuple[str, str, Array]]:
    """(path, class, output) of every module that runs once and returns a float tensor, innermost first.

    Args:
        captured: the network.
        feeds: what it is run on.
    """
    model: nn.Module | None = getattr(captured.reference, "module", None)
    if model is None:
        return []
    recorded: list[tuple[str, str, Array]] = []
    calls: dict[str, int] = {}

    def record(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            if isinstance(output, torch.Tensor) and output.is_floating_point():
                recorded.append((path, type(module).__name__, output.detach().float().numpy().copy()))

        return hook

    handles = [m.register_forward_hook(record(path)) for path, m in model.named_modules() if path]
    try:
        captured.reference(feeds)
    finally:
        for handle in handles:
            handle.remove()
    return [row for row in recorded if calls[row[0]] == 1]
