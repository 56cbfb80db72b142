"""Linear chains: each word has a tag, and a sequence of tags is scored by its pairs of neighbours."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_latent.inference.checks import check_count, check_floating, describe
from hf_latent.structures.declared import DeclaredStructure, declare
from hf_latent.structures.linear_chain.cpu.pairs import ChainKernels
from hf_latent.structures.linear_chain.reference import ChainReference

LARGEST_ENUMERATION = 300_000


@declare("chain", reference=ChainReference(), cpu=ChainKernels())
@dataclass(frozen=True)
class LinearChain(DeclaredStructure):
    """All sequences of tags over the words of a sentence, as the pairs of tags that neighbours have.

    `scores[b, i, t, u]`, shape `(batch, n - 1, tags, tags)`: tag t for word i and u for word i + 1. `lengths (batch,)` is the
    number of words; pairs beyond are ignored on input and exactly 0 on output. A score of -inf forbids the pair. A sentence of
    one word, or none, has no pairs and one (empty) sequence.

    Attributes:
        tags: how many tags there are.

    Every operation costs O(n · tags²) a sentence in n steps; `sparsemap` some such argmaxes, `top_k` k times as much at most.
    """

    tags: int

    event_dims: ClassVar[int] = 3
    group_dims: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_count("tags", self.tags)

    def check_shape(self, scores: object, name: str = "scores") -> Tensor:
        """`scores`, or an error that names what is wrong with their type or shape."""
        scores = check_floating(scores, "(batch, n - 1, tags, tags)", 4, name)
        if scores.shape[2:] != (self.tags, self.tags):
            raise ValueError(
                f"`{name}` must have shape (batch, n - 1, {self.tags}, {self.tags}): for each pair of neighbours, a row for "
                f"the tag of the first and a column for that of the second; got {describe(scores)}."
            )
        return scores

    def longest(self, scores: Tensor) -> int:
        """A word more than there are pairs."""
        return scores.shape[1] + 1

    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True for pairs within the sentence."""
        pairs = torch.arange(scores.shape[1], device=scores.device) < lengths[:, None] - 1
        return pairs[:, :, None, None].expand(scores.shape)

    def num_parts(self, lengths: Tensor) -> Tensor:
        """One for each pair of neighbours."""
        return (lengths - 1).clamp(min=0)

    def enumerate(self, size: int) -> Tensor:
        """All sequences over `size` words, `(count, size - 1, tags, tags)`.

        Raises:
            ValueError: more than 300,000 of them.
        """
        if self.tags**size > LARGEST_ENUMERATION:
            raise ValueError(f"`size` must be such that tags^size is at most {LARGEST_ENUMERATION}, got {self.tags}^{size}.")
        if size < 2:
            return torch.zeros(1, 0, self.tags, self.tags)
        tags = torch.nn.functional.one_hot(torch.cartesian_prod(*[torch.arange(self.tags)] * size), self.tags).float()
        return tags[:, :-1, :, None] * tags[:, 1:, None, :]
