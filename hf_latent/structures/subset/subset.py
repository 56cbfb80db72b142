"""Subsets: which items of a row are chosen, a given number of them or between two numbers."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from hf_latent.inference.checks import WrongAt, check_floating, is_eager
from hf_latent.structures.declared import DeclaredStructure, declare
from hf_latent.structures.subset.cpu.operations import SubsetKernels
from hf_latent.structures.subset.reference import SubsetReference

LARGEST_ENUMERATION = 300_000
AS_AT_LEAST = -1.0


@declare("subset", reference=SubsetReference(), cpu=SubsetKernels())
@dataclass(frozen=True)
class Subset(DeclaredStructure):
    """All ways to choose some items of a row: k words of a sentence, say, or a fifth of them.

    `scores[b, i]`, shape `(batch, n)`, is for item i to be chosen; z is 1 where it is. `lengths (batch,)` is the number of
    items; those beyond are ignored on input and exactly 0 on output. A score of -inf forbids the item. A row without items has
    one (empty) subset.

    >>> Subset(2).argmax(torch.tensor([[0.5, -1.0, 3.0, 2.0]]))
    tensor([[0., 0., 1., 1.]])

    Attributes:
        at_least: how many items are chosen at least.
        at_most: how many at most; by default as many as at least, so that it is exactly so many. `math.inf` for no limit.
        share: whether both are shares of the row's items, between 0 and 1, in place of numbers. A share of n items is rounded
            up: a fifth of 7 words is 2, and of a single one, that one.

    Raises:
        ValueError: when an operation is called: a row of fewer items than `at_least`, or with fewer that are not forbidden.

    With k the largest number of items that may be chosen, `log_partition`, `marginals`, their gradients and `sample` cost
    O(n · k) a row, `top_k` as many times more, `argmax` and `sparsemap` O(n · log n).
    """

    at_least: float
    at_most: float = AS_AT_LEAST
    share: bool = False

    event_dims: ClassVar[int] = 1
    # Each item is in or out by itself; a constant added to all scores matters, unless the number of items is given.
    group_dims: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.at_most == AS_AT_LEAST:
            object.__setattr__(self, "at_most", self.at_least)
        for name in ("at_least", "at_most"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
            if self.share and not (is_number and value <= 1):
                raise ValueError(
                    f"`{name}` must be a share between 0 and 1, got {value!r}. For a number of items, leave out `share`."
                )
            is_unlimited = name == "at_most" and value == math.inf
            if not self.share and not (is_number and (is_unlimited or value % 1 == 0)):
                raise ValueError(
                    f"`{name}` must be a whole number of at least 0, got {value!r}. For a share, pass `share=True`."
                )
            object.__setattr__(self, name, float(value))
        if self.at_most < self.at_least:
            raise ValueError(f"`at_most` must not be below `at_least`, got {self.at_most:g} and {self.at_least:g}.")

    def bounds(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """How many items of rows of these `lengths` are chosen at least and at most, int64 in the shape of `lengths`.

        Raises:
            ValueError: a row of fewer items than are to be chosen.
        """
        if self.share:
            # A fraction, times its denominator, may be a little above the whole number that it is.
            least, most = ((lengths * own - 1e-9).ceil().clamp(min=0).long() for own in (self.at_least, self.at_most))
            return least, most
        wrong = (lengths > 0) & (lengths < self.at_least)
        if is_eager() and wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise WrongAt(
                f"`{{name}}` must be at least {self.at_least:g}, the number of items to be chosen (`at_least`), but "
                f"{{name}}{{place}} is {int(lengths[row])}. Choose fewer, or a share (`share=True`), or leave the row out.",
                "lengths",
                (row,),
            )
        least, most = (lengths.clamp(max=int(min(own, 2**62))) for own in (self.at_least, self.at_most))
        return least, most

    def check_shape(self, scores: object, name: str = "scores") -> Tensor:
        """`scores`, or an error that names what is wrong with their type or shape."""
        return check_floating(scores, "(batch, n)", 2, name)

    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True for the items of the row.

        Raises:
            ValueError: a row of fewer items than are to be chosen.
        """
        self.bounds(lengths)
        return torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]

    def num_parts(self, lengths: Tensor) -> Tensor:
        """The largest number of items that may be chosen."""
        return self.bounds(lengths.flatten())[1].view(lengths.shape)

    def enumerate(self, size: int) -> Tensor:
        """All subsets of `size` items, `(count, size)`.

        Raises:
            ValueError: more than 300,000 of them; fewer items than are to be chosen.
        """
        least, most = (int(own) for own in self.bounds(torch.tensor([size])))
        count = sum(math.comb(size, number) for number in range(least, most + 1))
        if count > LARGEST_ENUMERATION:
            raise ValueError(f"`size` must be such that there are at most {LARGEST_ENUMERATION} subsets, got {size}: {count}.")
        found = torch.zeros(count, size)
        chosen = (own for number in range(least, most + 1) for own in combinations(range(size), number))
        for row, own in enumerate(chosen):
            found[row, list(own)] = 1.0
        return found
