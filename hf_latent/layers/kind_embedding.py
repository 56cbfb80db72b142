"""One vector for all tokens of a kind."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class KindEmbedding(nn.Module):
    """Learned vectors of kinds of tokens, such as parts of speech: whoever sees them cannot tell tokens of one kind apart.

    `input_ids (batch, tokens)` -> `(batch, tokens, size)`.

    Args:
        kinds: of each token of the vocabulary, counted from 0.
        size: of a vector.

    Raises:
        ValueError: no kinds, or one that is not an integer of at least 0.
    """

    kinds: Tensor

    def __init__(self, kinds: Sequence[int], size: int) -> None:
        super().__init__()
        if not len(kinds) or not all(isinstance(kind, int) and kind >= 0 for kind in kinds):
            raise ValueError("`kinds` must give each token of the vocabulary its kind, an integer of at least 0.")
        self.register_buffer("kinds", torch.tensor(kinds))
        self.weight = nn.Parameter(torch.empty(max(kinds) + 1, size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Vectors of unit variance."""
        nn.init.normal_(self.weight)

    def forward(self, input_ids: Tensor) -> Tensor:
        return nn.functional.embedding(self.kinds[input_ids], self.weight)
