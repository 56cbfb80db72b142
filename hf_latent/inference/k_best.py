"""The k best structures (Lawler 1972), with nothing but an argmax.

The structures other than the best one are split into sets that do not overlap: those that differ from it first in group 0, in
group 1, and so on (in trees, a group is a word, which chooses its head). The best of each set is an argmax in which the groups
before choose as they do in the best, and that group must not. The best of all of these is the second best structure, whose set
is split in turn. The rows of a batch go through this together: one argmax for each of the k.
"""

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hf_latent.inference.checks import in_reach

Oracle = Callable[[Tensor, Tensor], Tensor]

# At most this many scores are looked at in one go.
LARGEST_CHUNK = 2**18


def best_structures(structure: Any, scores: Tensor, lengths: Tensor, oracle: Oracle, k: int) -> tuple[Tensor, Tensor]:
    """The choices of the k best structures `(batch, k, groups)`, -1 for none, best first, and their scores `(batch, k)`.

    `oracle(scores, lengths)` gives a best structure for each row of scores, and 0 where all are forbidden. Where there are
    fewer than k, the choices of the rest are -1 throughout and their scores -inf. Takes up to k · groups argmaxes a row.
    """
    batch, dims = len(scores), structure.group_dims
    shape = batch, scores.shape[1:-dims].numel(), scores.shape[-dims:].numel()
    choices = torch.full((batch, k, shape[1]), -1, device=scores.device)
    values = torch.full((batch, k), -torch.inf, dtype=torch.float64, device=scores.device)
    positions = structure.positions(scores, lengths)
    own = positions.reshape(shape).any(2)  # the groups that a row has
    values[~own.any(1), 0] = 0.0
    rows = own.any(1).nonzero()[:, 0]
    if not len(rows):
        return choices, values
    exact = scores.double().masked_fill(~positions, 0.0)
    sets = _Sets(exact.reshape(shape), ~in_reach(scores, positions).reshape(shape))

    def argmax(some: Tensor, rows: Tensor) -> Tensor:
        return oracle(some.view(len(some), *scores.shape[1:]), lengths[rows]).view(some.shape)

    sets.add(rows, torch.zeros_like(rows), lambda some: sets.forbidden[rows[some]], argmax)
    for place in range(k):
        rows, chosen, first, forbidden, best = sets.pop()
        if not len(rows):
            break
        choices[rows, place], values[rows, place] = chosen.where(own[rows], -1), best
        if place < k - 1:
            sets.split(rows, chosen, first, forbidden, own[rows], argmax)
    return choices, values


class _Sets:
    """Of each row, sets of structures that do not overlap, each with its best structure."""

    def __init__(self, scores: Tensor, forbidden: Tensor) -> None:
        """`scores` and `forbidden (batch, groups, columns)`; scores are 0 where they do not count."""
        self.scores, self.forbidden = scores, forbidden
        # Of size 1, none of them is so low beside the others of a set that the argmax takes it for forbidden.
        size = scores.masked_fill(forbidden, 0.0).abs().amax((1, 2), keepdim=True)
        self.comparable = torch.ldexp(scores, -torch.frexp(size).exponent)
        self.queues: list[list[tuple[float, int, int, Tensor, Tensor]]] = [[] for _ in scores]
        self.tie_breaker = itertools.count()

    def add(self, rows: Tensor, first: Tensor, forbidden: Callable[[Tensor], Tensor], argmax: Oracle) -> None:
        """Adds a set of each of `rows`, to be split from the group `first` on, unless no structure is in it.

        `forbidden(some)` gives the parts `(some, groups, columns)` that no structure of those sets has.
        """
        chunk = max(1, LARGEST_CHUNK // self.scores[0].numel())
        for some in torch.arange(len(rows), device=rows.device).split(chunk):
            row, mask = rows[some], forbidden(some)
            best = argmax(self.comparable[row].masked_fill_(mask, -torch.inf), row)
            chosen = best.argmax(2, keepdim=True)
            exists = best.gather(2, chosen).flatten(1).any(1)
            totals = self.scores[row].gather(2, chosen).flatten(1).sum(1)
            at_first = mask[some - some[0], first[some]]
            found = zip(*(part.tolist() for part in (row, exists, totals, first[some])), chosen[..., 0], at_first, strict=True)
            for queue, there, total, group, choices, forbidden_at_first in found:
                if there:
                    entry = -total, next(self.tie_breaker), group, choices, forbidden_at_first
                    heapq.heappush(self.queues[queue], entry)

    def pop(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Takes each row's best set out: rows, choices, the group to split from, what is forbidden there, and scores."""
        device = self.scores.device
        left = [row for row, queue in enumerate(self.queues) if queue]
        rows = torch.tensor(left, dtype=torch.int64, device=device)
        if not left:
            return (rows,) * 5
        negatives, _, first, chosen, forbidden = zip(*(heapq.heappop(self.queues[row]) for row in left), strict=True)
        best = -torch.tensor(negatives, dtype=torch.float64, device=device)
        return rows, torch.stack(chosen), torch.tensor(first, device=device), torch.stack(forbidden), best

    def split(self, rows: Tensor, chosen: Tensor, first: Tensor, forbidden: Tensor, own: Tensor, argmax: Oracle) -> None:
        """Adds what is left of sets that were taken out, by the first group that differs from `chosen (rows, groups)`."""
        groups = torch.arange(self.scores.shape[1], device=rows.device)
        others = ~one_hot(chosen, self.scores.shape[2]).bool()
        which, at = (own & (groups >= first[:, None])).nonzero(as_tuple=True)

        def of_sets(some: Tensor) -> Tensor:
            here, group = which[some], at[some]
            mask = torch.where((groups < group[:, None])[:, :, None], others[here], self.forbidden[rows[here]])
            there = some - some[0], group
            before = torch.where((group == first[here])[:, None], forbidden[here], mask[there])
            mask[there] = before | ~others[here, group]
            return mask

        self.add(rows[which], at, of_sets, argmax)
