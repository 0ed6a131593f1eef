"""What both sides of a pruning benchmark are measured by."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Deviation:
    """How far a pruned network is from the dense one, over some images.

    Attributes:
        energy: ‖y − y_d‖² / ‖y_d‖², over all logits of all images.
        rmse: its root, the relative RMSE.
        agreement: share of images whose best class is the dense network's, 0 to 1.
    """

    energy: float
    rmse: float
    agreement: float


def flops(network: nn.Module, sample: Tensor) -> int:
    """FLOPs (2 a multiply-add) of convolutions, linear layers and attention, by PyTorch's own counter."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(sample)
    return int(counter.get_total_flops())


@torch.inference_mode()
def logits(network: nn.Module, images: Tensor, batch: int = 32) -> Tensor:
    """[N, classes], computed in batches."""
    return torch.cat([network(part) for part in images.tensor_split(-(-len(images) // batch))])


def deviation(pruned: Tensor, dense: Tensor) -> Deviation:
    """Compares logits.

    Args:
        pruned: [N, classes].
        dense: [N, classes], the truth.
    """
    energy = float((pruned - dense).double().square().sum() / dense.double().square().sum())
    agreement = float((pruned.argmax(1) == dense.argmax(1)).double().mean())
    return Deviation(energy, energy**0.5, agreement)


@torch.inference_mode()
def reestimate_norms_(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Sets the statistics of batch norms to those of some unlabelled images, in place.

    Mean and variance are averaged over the batches, as PyTorch does with `momentum=None`. A network without
    batch norms stays as it is.

    Returns:
        The same network, in evaluation mode.
    """
    norms = [module for module in network.modules() if isinstance(module, _NORMS)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches if norms else ():
        network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
