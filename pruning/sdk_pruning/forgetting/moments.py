"""First and second moments of what layers read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdk_pruning import moments
from sdk_pruning.forgetting.editable_layers import EditableLayer, evaluating
from sdk_runtimes.errors import PruningError

CHUNK = 128  # samples of one forward pass
_MOST_VALUES = 1 << 24  # patches held at once, 128 MB in float64
_MOST_COLUMNS = 1 << 14  # of one layer: its second moment takes 2 GiB then
_SAME = 1e-2  # relative; bf16 rounds at 4e-3, a layer that computes something else is off by far more


@dataclass(frozen=True)
class Moments:
    """Of the features u of one layer over samples and positions.

    Attributes:
        count: feature vectors seen.
        mean: E[u], float64 (groups, N).
        second: E[u uᵀ], float64 (groups, N, N), about zero.
    """

    count: int
    mean: Tensor
    second: Tensor

    def about(self, centre: Tensor) -> Tensor:
        """E[(u − c)(u − c)ᵀ], (groups, N, N), for a centre c of (groups, N)."""
        cross = self.mean[:, :, None] * centre[:, None, :]
        return self.second - cross - cross.mT + centre[:, :, None] * centre[:, None, :]

    def covariance(self) -> Tensor:
        """The second moment about the mean, (groups, N, N)."""
        return self.about(self.mean)


class _Sums:
    """Adds up while the network runs."""

    def __init__(self, layer: EditableLayer) -> None:
        groups, _, columns = layer.matrix().shape
        if columns > _MOST_COLUMNS:
            raise PruningError(
                f"layer {layer.name!r} reads {columns} values at a time",
                why=f"their second moment is {columns**2 * 8 / 2**30:.1f} GiB; the most is {_MOST_COLUMNS}",
                fix="pass layers=[...] without it",
            )
        device = layer.module.weight.device
        self.layer = layer
        self.count = 0
        self.first = torch.zeros(groups, columns, dtype=torch.float64, device=device)
        self.second = torch.zeros(groups, columns, columns, dtype=torch.float64, device=device)

    def see(self, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook."""
        if not self.count:
            _check_linear(self.layer, args[0][:1], output[:1])
        for part in _parts(self.layer, args[0]):
            u = patches(self.layer, part)
            self.count += u.shape[1]
            self.first += u.sum(1)
            self.second += u.mT @ u

    def moments(self) -> Moments:
        """What was seen."""
        return Moments(self.count, self.first / self.count, self.second / self.count)


def capture_moments(model: nn.Module, layers: Sequence[EditableLayer], inputs: Tensor) -> dict[str, Moments]:
    """Runs samples through the network, in eval mode, and gathers what layers read.

    Args:
        model: the network.
        layers: of it.
        inputs: (B, ...).

    Returns:
        Layer name -> moments.

    Raises:
        PruningError: a layer that does not compute W u + b of the patches it reads, or reads too many values.
    """
    sums = [_Sums(layer) for layer in layers]
    device = device_of(model)
    with evaluating(model):
        handles = [each.layer.module.register_forward_hook(each.see) for each in sums]
        try:
            for chunk in torch.split(inputs, CHUNK):
                model(chunk.to(device))
        finally:
            for handle in handles:
                handle.remove()
    return {each.layer.name: each.moments() for each in sums}


def patches(layer: EditableLayer, read: Tensor) -> Tensor:
    """What the layer multiplies its weight with, one row a sample and position.

    Args:
        layer: the layer.
        read: its input: (..., n) of a linear layer, (B, n, H, W) of a convolution.

    Returns:
        float64 (groups, rows, N); N ordered (channel, tap) as in `weight.flatten(1)`.
    """
    module = layer.module
    if isinstance(module, nn.Linear):
        return read.double().reshape(1, -1, module.in_features)
    image = read if read.ndim == 4 else read.unsqueeze(0)
    rows = moments.patches(  # (B · positions, n · taps)
        image.double(),
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        padding_mode=module.padding_mode,
    )
    return rows.reshape(len(rows), module.groups, -1).transpose(0, 1)


def device_of(model: nn.Module) -> torch.device:
    """Where its first parameter lies."""
    return next(model.parameters()).device


def _parts(layer: EditableLayer, read: Tensor) -> tuple[Tensor, ...]:
    """The batch in parts whose patches fit into memory."""
    each = max(1, read[0].numel() * layer.taps)
    return torch.split(read, max(1, _MOST_VALUES // each))


def _check_linear(layer: EditableLayer, read: Tensor, output: Tensor) -> None:
    """One sample: does the layer compute W u + b?

    Subclasses may standardise their weight, hooks may change what comes out.
    """
    expected = (patches(layer, read) @ layer.matrix().mT).transpose(0, 1).flatten(1)  # (rows, m)
    if layer.module.bias is not None:
        expected = expected + layer.module.bias.double()
    channel = -1 if isinstance(layer.module, nn.Linear) else -3
    actual = output.double().movedim(channel, -1).reshape(-1, expected.shape[-1])
    if actual.shape != expected.shape or (actual - expected).norm() > _SAME * expected.norm():
        raise PruningError(
            f"layer {layer.name!r} ({type(layer.module).__name__}) does not compute W·u + b",
            why="its class or a hook changes weight, input or output",
            fix="pass layers=[...] without it",
        )
