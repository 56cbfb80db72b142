"""One vector of a token from those of several layers of an encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScalarMix(nn.Module):
    """γ Σ_l softmax(w)_l norm(h_l), a learned weighted mean of layers (Peters et al. 2018).

    `num_layers` tensors `(batch, tokens, size)` -> one of them. Each is brought to mean 0 and variance 1 first, since layers
    differ in scale in encoders that do not normalize their outputs.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(num_layers))
        self.scale = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The plain mean."""
        nn.init.zeros_(self.weights)
        nn.init.ones_(self.scale)

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        weights = self.scale * self.weights.softmax(0)
        mixed = torch.zeros_like(layers[0], dtype=weights.dtype)
        for weight, layer in zip(weights, layers, strict=True):
            mixed = mixed + weight * nn.functional.layer_norm(layer.to(weights.dtype), layer.shape[-1:])
        return mixed
