"""The weights of a model before it is traced: there, finite, in fp32 on the CPU."""

import copy
import logging
from collections.abc import Callable

import torch
from torch import nn

from sdk_runtimes.errors import WeightsError

_log = logging.getLogger(__name__)


def refuse_absent_weights(model: nn.Module) -> None:
    """Refuses weights on the meta device.

    Raises:
        WeightsError: names the first of them.
    """
    absent = [path for path, t in model.state_dict(keep_vars=True).items() if getattr(t, "is_meta", False)]
    if absent:
        raise WeightsError(
            f"{type(model).__name__} has {len(absent)} weights on the meta device, {absent[0]!r} the first",
            why="there is nothing to ship",
            fix="load the checkpoint first: model.load_state_dict(…, assign=True)",
        )


def refuse_bad_weights(model: nn.Module) -> None:
    """Refuses NaN anywhere and Inf in parameters (buffers may hold -inf masks).

    Raises:
        WeightsError: names the tensors.
    """
    bad = [f"{path} (NaN)" for path, t in model.state_dict(keep_vars=True).items() if _has(torch.isnan, t)]
    bad += [f"{path} (Inf)" for path, t in model.named_parameters() if _has(torch.isinf, t)]
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise WeightsError(
            f"{type(model).__name__} has weights that are not numbers: {shown}",
            why="no comparison with such a model means anything",
            fix="load an earlier checkpoint",
        )


def _has(test: Callable[[torch.Tensor], torch.Tensor], tensor: object) -> bool:
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        return False
    # In chunks: the boolean mask of a large weight would add a quarter of its size to the peak.
    flat = tensor.detach().reshape(-1)
    return any(bool(test(chunk).any()) for chunk in torch.split(flat, 1 << 24))


def on_cpu_in_float32(model: nn.Module) -> nn.Module:
    """The model itself if it is on the CPU in fp32, else a copy: eager fp32 is the truth."""
    tensors = [t for t in model.state_dict(keep_vars=True).values() if isinstance(t, torch.Tensor)]
    other_device = next((t.device for t in tensors if t.device.type != "cpu"), None)
    other_dtype = next((t.dtype for t in tensors if t.is_floating_point() and t.dtype != torch.float32), None)
    if other_device is None and other_dtype is None:
        return model
    _log.info("exporting a float32 CPU copy of a %s model on %s", other_dtype, other_device or "cpu")
    return copy.deepcopy(model).to(device="cpu", dtype=torch.float32)
