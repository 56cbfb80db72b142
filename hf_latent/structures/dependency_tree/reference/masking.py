"""Which arcs exist: the one place that knows about padding, self arcs and forbidden scores."""

import torch
from torch import Tensor

from hf_latent.inference.checks import in_reach

# -inf as the recursions of the reference write it: sums of it never overflow and differences of it are never NaN, so forbidden
# entries need no special case. `exp` of it is exactly 0, and real scores lie far above it.
FORBIDDEN = -1e290


def word_mask(lengths: Tensor, n: int) -> Tensor:
    """`(batch, n)`, True where there is a word."""
    return torch.arange(n, device=lengths.device) < lengths[:, None]


def arc_mask(lengths: Tensor, n: int) -> Tensor:
    """`(batch, n, n + 1)`, True where an arc may be: dependent and head inside the sentence, and not the same word."""
    words = word_mask(lengths, n)
    heads = torch.cat([words.new_ones(len(words), 1), words], dim=1)
    self_arcs = torch.eye(n, n + 1, dtype=torch.bool, device=lengths.device).roll(1, dims=1) if n else heads[:, None]
    return words[:, :, None] & heads[:, None, :] & ~self_arcs


def normalize(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 scores with `FORBIDDEN` where no arc may be, and a maximum of 0 in each row; and the sum of the maxima.

    Each word has exactly one head, so a constant added to a row changes the score of every tree alike: argmax,
    marginals and projection stay as they are, and the log-partition moves by the sum `(batch,)` that is returned.
    """
    mask = in_reach(scores, arc_mask(lengths, scores.shape[1]))
    scores = scores.double().masked_fill(~mask, FORBIDDEN)
    maxima = scores.detach().amax(dim=2, keepdim=True).masked_fill(~mask.any(2, keepdim=True), 0.0)
    return (scores - maxima).masked_fill(~mask, FORBIDDEN), maxima.sum(dim=(1, 2))
