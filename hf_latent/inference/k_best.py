"""The k best trees (Lawler 1972): whatever the kind, with nothing but its argmax.

The trees other than the best one are split into sets that do not overlap: those that differ from it first at word 0, at word
1, and so on. The best of each set is an argmax in which the words before have the heads that they have, and that word must not
have its own. The best of all of these is the second best tree, whose set is split in turn.
"""

import heapq
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

Argmax = Callable[[Tensor], Tensor]

# At most this many scores are looked at in one go.
LARGEST_CHUNK = 2**22


def best_trees(scores: Tensor, allowed: Tensor, lengths: Tensor, argmax: Argmax, k: int) -> tuple[Tensor, Tensor]:
    """The heads of the k best trees `(batch, k, n)` (n + 1 beyond the sentence), best first, and their scores `(batch, k)`.

    `argmax` gives the arcs of a best tree for each row of scores `(rows, n, n + 1)`, all of length n, and none where all trees
    are forbidden. The k best trees have no arc but those `allowed (batch, n, n + 1)`.

    Where there are fewer than k trees, the heads of the rest are n + 1 throughout and their scores -inf. Takes up to k · n
    argmaxes a sentence.
    """
    size, n = scores.shape[:2]
    heads = torch.full((size, k, n), n + 1, device=scores.device)
    values = torch.full((size, k), -torch.inf, dtype=torch.float64, device=scores.device)
    for row, length in enumerate(lengths.tolist()):
        own = (slice(length), slice(length + 1))
        in_order = _in_order(scores[row][own].double(), allowed[row][own], argmax)
        for place, (value, tree) in enumerate(itertools.islice(in_order, k)):
            heads[row, place, :length] = tree
            values[row, place] = value
    return heads, values


def _in_order(scores: Tensor, possible: Tensor, argmax: Argmax):  # type: ignore[no-untyped-def]
    """All trees over one sentence's `scores (n, n + 1)`, of `possible` arcs, as (score, heads), best first."""
    n = len(scores)
    if n == 0:
        yield 0.0, torch.zeros(0, dtype=torch.int64, device=scores.device)
        return
    words = torch.arange(n, device=scores.device)
    tie_breaker = itertools.count()
    # Of size 1, none of them is so low beside the others of a set that the argmax takes it for forbidden.
    comparable = torch.ldexp(scores, -torch.frexp(scores.masked_fill(~possible, 0.0).abs().amax()).exponent)
    queue: list[tuple[float, int, Tensor, int, Tensor]] = []

    def push(allowed: Tensor, split: Tensor) -> None:
        """The best tree of each set, `allowed (sets, n, n + 1)`, that has one; `split (sets,)` is where it is split next."""
        chunk = max(1, LARGEST_CHUNK // (n * (n + 1)))
        for some, at in zip(allowed.split(chunk), split.split(chunk), strict=True):
            arcs = argmax(comparable.where(some, -torch.inf))
            heads = arcs.argmax(2)
            totals = scores.expand(len(heads), -1, -1).gather(2, heads[:, :, None]).sum((1, 2))
            found = zip(arcs.flatten(1).any(1).tolist(), totals.tolist(), heads, at.tolist(), some, strict=True)
            for is_tree, total, tree, place, mask in found:
                if is_tree:
                    heapq.heappush(queue, (-total, next(tie_breaker), tree, place, mask[place].clone()))

    push(possible[None], torch.zeros(1, dtype=torch.int64))
    while queue:
        negative, _, tree, place, allowed_at_place = heapq.heappop(queue)
        yield -negative, tree
        splits = words[place:]
        same = torch.nn.functional.one_hot(tree, n + 1).bool()
        mask = torch.where((words < splits[:, None])[:, :, None], same, possible)
        mask[0, place] = allowed_at_place
        mask[splits - place, splits] &= ~same[splits]
        push(mask, splits)
