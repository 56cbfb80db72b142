"""Which arcs exist: the one place that knows about padding and self arcs."""

import torch
from torch import Tensor


def word_mask(lengths: Tensor, n: int) -> Tensor:
    """`(batch, n)`, True where there is a word."""
    return torch.arange(n, device=lengths.device) < lengths[:, None]


def arc_mask(lengths: Tensor, n: int) -> Tensor:
    """`(batch, n, n + 1)`, True where an arc may be: dependent and head inside the sentence, and not the same word."""
    words = word_mask(lengths, n)
    heads = torch.cat([words.new_ones(len(words), 1), words], dim=1)
    self_arcs = torch.eye(n, n + 1, dtype=torch.bool, device=lengths.device).roll(1, dims=1) if n else heads[:, None]
    return words[:, :, None] & heads[:, None, :] & ~self_arcs
