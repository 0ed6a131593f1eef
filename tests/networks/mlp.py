"""An autoencoder with tied weights (the decoder is the transposed encoder), buffers and many activations."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.cases import Case, Inputs, noise, seeded


class TiedAutoencoder(nn.Module):
    """(B, 24) to (B, 24); standardised by buffers on the way in and back on the way out."""

    def __init__(self, features: int = 24, hidden: int = 40) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(features))
        self.register_buffer("std", torch.rand(features) + 0.5)
        self.register_buffer("gain", torch.tensor(1.5), persistent=False)
        self.encode = nn.Linear(features, hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.again = nn.Linear(hidden, hidden)
        self.again.weight = self.mix.weight  # tied as modules, as language models tie their head
        self.bias = nn.Parameter(torch.randn(features) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.elu(self.encode((x - self.mean) / self.std)) * self.gain
        h = F.leaky_relu(self.mix(h), 0.1) + F.softplus(self.again(torch.tanh(h)))
        h = F.gelu(h) + F.mish(h)
        return F.linear(h, self.encode.weight.t(), self.bias) * self.std + self.mean


CASES = (
    Case(
        "mlp_tied",
        seeded(TiedAutoencoder),
        lambda batch: Inputs((noise(batch, 24),)),
        sample={"batch": 3},
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=16)}},
        sizes=({"batch": 1}, {"batch": 2}, {"batch": 16}),
    ),
)
