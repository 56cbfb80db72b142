"""Subsets of the words of a row in which it matters whether neighbours are both chosen."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_latent.inference.checks import check_floating, describe
from hf_latent.structures.declared import declare
from hf_latent.structures.subset.chain_reference import BEGINS, GOES_ON, SubsetChainReference
from hf_latent.structures.subset.subset import Subset


@declare("subsetchain", reference=SubsetChainReference())
@dataclass(frozen=True)
class SubsetChain(Subset):
    """`Subset` with scores of neighbours: a chain over items that are chosen or not, with a budget.

    `scores[b, i, 0]`, shape `(batch, n, 2)`, is for item i to be chosen and the one before it not; `scores[b, i, 1]`, in place
    of that, for both to be chosen. z has the 1 of each chosen item in one of the two columns; `z.sum(-1)` is the subset. Where
    the second column is higher, chosen items stand together, in few stretches: contiguous rationales. (Of the first item, the
    second column is ignored on input and exactly 0 on output.)

    >>> words = torch.tensor([[2.0, 0.0, 1.9, 1.8]])
    >>> SubsetChain(2).argmax(with_neighbours(words, 0.5)).sum(-1)
    tensor([[0., 0., 1., 1.]])

    Attributes, errors and costs are those of `Subset`, but `argmax` costs O(n · k), and `sparsemap` some such argmaxes.
    """

    event_dims: ClassVar[int] = 2
    group_dims: ClassVar[int] = 1

    def check_shape(self, scores: object, name: str = "scores") -> Tensor:
        """`scores`, or an error that names what is wrong with their type or shape."""
        scores = check_floating(scores, "(batch, n, 2)", 3, name)
        if scores.shape[2] != 2:
            raise ValueError(
                f"`{name}` must have shape (batch, n, 2): for each item a score to be chosen without the one before, and one "
                f"to be chosen with it (`with_neighbours` makes them); got {describe(scores)}."
            )
        return scores

    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True for what items of the row can be: where all must be chosen, none but the first without the one before it.

        Raises:
            ValueError: a row of fewer items than are to be chosen.
        """
        inside = super().positions(scores, lengths)
        least, most = self.bounds(lengths)
        is_later = torch.arange(scores.shape[1], device=scores.device) > 0
        begins = ~is_later | (least < lengths)[:, None]
        goes_on = is_later & (most > 1)[:, None]
        return torch.stack([inside & begins, inside & goes_on], -1)

    def enumerate(self, size: int) -> Tensor:
        """All subsets of `size` items, `(count, size, 2)`.

        Raises:
            ValueError: more than 300,000 of them; fewer items than are to be chosen.
        """
        chosen = super().enumerate(size)
        before = pad(chosen[:, :-1], (1, 0)) if size else chosen
        columns = {BEGINS: chosen * (1 - before), GOES_ON: chosen * before}
        return torch.stack([columns[BEGINS], columns[GOES_ON]], -1)


def with_neighbours(scores: Tensor, neighbours: Tensor | float) -> Tensor:
    """Scores of a `SubsetChain`, `(batch, n, 2)`, from those of items `(batch, n)`, and of neighbours that are both chosen.

    Args:
        scores: of each item to be chosen.
        neighbours: what is added where an item and the one before it are: a number, or of each item `(batch, n)`.
    """
    return torch.stack([scores, scores + neighbours], -1)
