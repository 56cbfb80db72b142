"""The k best structures (Lawler 1972), with nothing but an argmax.

The structures other than the best one are split into sets that do not overlap: those that differ from it first in group 0, in
group 1, and so on (in trees, a group is a word, which chooses its head). The best of each set is an argmax in which the groups
before choose as they do in the best, and that group must not. The best of all of these is the second best structure, whose set
is split in turn.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.checks import in_reach

Oracle = Callable[[Tensor, int], Tensor]

# At most this many scores are looked at in one go.
LARGEST_CHUNK = 2**22


def best_structures(structure: Any, scores: Tensor, lengths: Tensor, oracle: Oracle, k: int) -> tuple[Tensor, Tensor]:
    """The choices of the k best structures `(batch, k, groups)`, -1 for none, best first, and their scores `(batch, k)`.

    `oracle(scores, length)` gives a best structure for each row of scores, all of one length, and 0 where all are forbidden.
    Where there are fewer than k, the choices of the rest are -1 throughout and their scores -inf. Takes up to k · groups
    argmaxes a row.
    """
    dims = structure.group_dims
    groups = scores.shape[1:-dims].numel()
    choices = torch.full((len(scores), k, groups), -1, device=scores.device)
    values = torch.full((len(scores), k), -torch.inf, dtype=torch.float64, device=scores.device)
    allowed = in_reach(scores, structure.positions(scores, lengths))
    for row, length in enumerate(lengths.tolist()):
        event = structure.event_shape(length, scores)
        own = tuple(slice(size) for size in event)
        count, columns = torch.Size(event[:-dims]).numel(), torch.Size(event[-dims:]).numel()

        def argmax(some: Tensor, event: tuple[int, ...] = event, length: int = length) -> Tensor:
            return oracle(some.view(len(some), *event), length).view(some.shape)

        exact, possible = (part[row][own].reshape(count, columns) for part in (scores.double(), allowed))
        for place, (value, chosen) in enumerate(itertools.islice(_in_order(exact, possible, argmax), k)):
            choices[row, place, :count] = _in_the_columns_of(chosen, event[-dims:], scores.shape[-dims:])
            values[row, place] = value
    return choices, values


def _in_the_columns_of(chosen: Tensor, own: tuple[int, ...], whole: torch.Size) -> Tensor:
    """Entries of a group of the size `own`, as they are numbered in a group of the size `whole`."""
    return (
        torch.as_tensor(torch.arange(whole.numel()).view(whole)[tuple(slice(size) for size in own)])
        .flatten()
        .to(chosen)[chosen]
    )


def _in_order(scores: Tensor, possible: Tensor, argmax: Callable[[Tensor], Tensor]) -> Iterator[tuple[float, Tensor]]:
    """All structures of `possible` parts over one row's `scores (groups, columns)`, as (score, choices), best first."""
    count, columns = scores.shape
    if count == 0:
        yield 0.0, torch.zeros(0, dtype=torch.int64, device=scores.device)
        return
    groups = torch.arange(count, device=scores.device)
    tie_breaker = itertools.count()
    # Of size 1, none of them is so low beside the others of a set that the argmax takes it for forbidden.
    comparable = torch.ldexp(scores, -torch.frexp(scores.masked_fill(~possible, 0.0).abs().amax()).exponent)
    queue: list[tuple[float, int, Tensor, int, Tensor]] = []

    def push(allowed: Tensor, split: Tensor) -> None:
        """The best of each set, `allowed (sets, groups, columns)`, that has one; `split (sets,)` is where it is split next."""
        chunk = max(1, LARGEST_CHUNK // (count * columns))
        for some, at in zip(allowed.split(chunk), split.split(chunk), strict=True):
            best = argmax(comparable.where(some, -torch.inf))
            choices = best.argmax(2)
            totals = scores.expand(len(choices), -1, -1).gather(2, choices[:, :, None]).sum((1, 2))
            found = zip(best.flatten(1).any(1).tolist(), totals.tolist(), choices, at.tolist(), some, strict=True)
            for exists, total, chosen, place, mask in found:
                if exists:
                    heapq.heappush(queue, (-total, next(tie_breaker), chosen, place, mask[place].clone()))

    push(possible[None], torch.zeros(1, dtype=torch.int64))
    while queue:
        negative, _, chosen, place, allowed_at_place = heapq.heappop(queue)
        yield -negative, chosen
        splits = groups[place:]
        same = torch.nn.functional.one_hot(chosen, columns).bool()
        mask = torch.where((groups < splits[:, None])[:, :, None], same, possible)
        mask[0, place] = allowed_at_place
        mask[splits - place, splits] &= ~same[splits]
        push(mask, splits)
