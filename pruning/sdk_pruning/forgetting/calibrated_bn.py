"""Batch norm statistics, estimated again on given data (BNFix of CoBRA; the "BN recall" test)."""

from torch import Tensor, nn

from sdk_pruning.forgetting.editable_layers import BATCH_NORMS, evaluating
from sdk_pruning.forgetting.moments import CHUNK, device_of


def reestimate_batch_norms_(model: nn.Module, inputs: Tensor) -> int:
    """Replaces running means and variances by those of these inputs; nothing else changes.

    Args:
        model: its batch norms are changed.
        inputs: (B, ...), at least two samples.

    Returns:
        How many batch norms keep running statistics.
    """
    norms = [
        each for each in model.modules() if isinstance(each, BATCH_NORMS) and each.running_mean is not None
    ]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    chunks = inputs.tensor_split(-(-len(inputs) // CHUNK))  # of nearly equal size: they count alike
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over batches
            norm.train()
        for chunk in chunks:
            model(chunk.to(device_of(model)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)
