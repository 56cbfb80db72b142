"""Subsets with scores of neighbours by the readable recursions: in float64, on any device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_latent.inference.algorithms import Algorithms
from hf_latent.inference.normalize import FORBIDDEN
from hf_latent.inference.random import uniforms

# Of a word that is chosen: the columns of the scores.
BEGINS, GOES_ON = 0, 1
Table = tuple[Tensor, Tensor]


class SubsetChainReference(Algorithms):
    """A chain over words that are chosen or not, which counts how many are so far."""

    def argmax(self, structure: Any, scores: Tensor, lengths: Tensor, required: bool = True) -> Tensor:
        """The words of highest score, going back from the end."""
        exact, tables = _tables(structure, scores, lengths, best=True)
        ends = _ends(structure, lengths, tables)
        found = _traced(exact, tables, ends, lengths, lambda one, other: one >= other, lambda scores: scores.argmax(1))
        return found if required else found * _exists(ends)[:, None, None]

    def has_structure(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """Which rows have enough words."""
        _, tables = _tables(structure, scores, lengths, best=True)
        return _exists(_ends(structure, lengths, tables))

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """`(batch,)`; differentiable twice."""
        _, tables = _tables(structure, scores, lengths, best=False)
        return _ends(structure, lengths, tables).flatten(1).logsumexp(1)

    def sample(self, structure: Any, scores: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """`(samples, batch, n)`, the column of a chosen word and -1 for all others."""
        samples, batch = seeds.shape
        rows = torch.arange(batch, device=seeds.device).repeat(samples)
        exact, tables = _tables(structure, scores, lengths, best=False)
        random = iter(uniforms(seeds.flatten(), scores.shape[1] + 1).unbind(1))

        def take(one: Tensor, other: Tensor) -> Tensor:
            likelier = next(random) < (one - other).sigmoid()
            return (likelier | (other < FORBIDDEN / 2)) & ~(one < FORBIDDEN / 2)

        def draw(scores: Tensor) -> Tensor:
            steps = scores.softmax(1).cumsum(1)
            drawn = torch.searchsorted(steps, next(random)[:, None] * steps[:, -1:], right=True)[:, 0]
            last = (scores > FORBIDDEN / 2).int().cumsum(1).argmax(1)  # where rounding carried it past the end
            return torch.minimum(drawn, last)

        own = [(chosen[rows], rest[rows]) for chosen, rest in tables]
        found = _traced(exact[rows], own, _ends(structure, lengths, tables)[rows], lengths[rows], take, draw)
        choices = found.argmax(2).masked_fill(~found.bool().any(2), -1)
        return choices.view(samples, batch, scores.shape[1])

    def top_k(self, structure: Any, scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """`(batch, k, n)`, the column of a chosen word and -1 for all others; by keeping the k best ways to each state."""
        exact, tables = _tables(structure, scores, lengths, best=True)
        batch, n = scores.shape[:2]
        chosen, rest = (pad(own[..., None], (0, k - 1), value=FORBIDDEN) for own in tables[0])
        sources: list[Table] = []
        for word in range(n):
            inside = (word < lengths)[:, None, None]
            before, alone = (pad(own[:, :-1], (0, 0, 1, 0), value=FORBIDDEN) for own in (chosen, rest))
            longer, from_longer = _best_of(
                alone + exact[:, word, BEGINS, None, None], before + exact[:, word, GOES_ON, None, None]
            )
            without, from_without = _best_of(rest, chosen)
            chosen, rest = longer.where(inside, chosen), without.where(inside, rest)
            sources.append((from_longer, from_without))
        ends = _ends(structure, lengths, [(chosen, rest)])  # (batch, 2, largest + 1, k)
        best, place = ends.flatten(1).sort(dim=1, descending=True, stable=True)
        missing = max(k - best.shape[1], 0)
        best, place = pad(best[:, :k], (0, missing), value=FORBIDDEN), pad(place[:, :k], (0, missing))
        rank, count, state = place % k, place // k % ends.shape[2], place // (k * ends.shape[2])
        found = torch.full((batch, k, n), -1, device=scores.device)
        rows = torch.arange(batch, device=scores.device)[:, None]
        for word in range(n - 1, -1, -1):
            inside = (word < lengths)[:, None]
            from_longer, from_without = sources[word]
            takes = (state == 0) & inside
            source = torch.where(takes, from_longer[rows, count, rank], from_without[rows, count, rank])
            goes_on = source >= k  # of the two, the second: the word before is chosen
            found[:, :, word] = torch.where(takes, goes_on.long(), -1)
            count = count - takes.long()
            state = (~goes_on).long().where(inside, state)
            rank = torch.where(inside, source % k, rank)
        exists = best > FORBIDDEN / 2
        return found.masked_fill(~exists[..., None], -1), best.masked_fill(~exists, -torch.inf)


def _best_of(one: Tensor, other: Tensor) -> Table:
    """Of two `(batch, counts, k)` the k best together, and their places: below k in the first, from k on in the second."""
    both, place = torch.cat([one, other], 2).clamp(min=FORBIDDEN).sort(dim=2, descending=True, stable=True)
    return both[..., : one.shape[2]], place[..., : one.shape[2]]


def _exists(ends: Tensor) -> Tensor:
    """Which rows have a subset, from what `_ends` returns."""
    return ends.flatten(1).amax(1) > FORBIDDEN / 2


def _tables(structure: Any, scores: Tensor, lengths: Tensor, best: bool) -> tuple[Tensor, list[Table]]:
    """The scores in float64, and log-sums (or maxima) over all ways to choose among the first words, for each number of words.

    Of those that choose the last word, and of the others; each `(batch, largest + 1)`, by how many are chosen.
    """
    exact = scores.double().masked_fill(scores.isneginf() | ~structure.positions(scores, lengths), FORBIDDEN)
    most = int(structure.bounds(lengths)[1].clamp(max=scores.shape[1]).max()) if len(lengths) else 0

    def either(one: Tensor, other: Tensor) -> Tensor:
        both = torch.stack([one, other])
        return (both.amax(0) if best else both.logsumexp(0)).clamp(min=FORBIDDEN)

    chosen = exact.new_full((len(scores), most + 1), FORBIDDEN)
    rest = chosen.clone()
    rest[:, 0] = 0.0
    tables = [(chosen, rest)]
    for word in range(scores.shape[1]):
        inside = (word < lengths)[:, None]
        before, alone = (pad(own[:, :-1], (1, 0), value=FORBIDDEN) for own in (chosen, rest))
        longer = either(alone + exact[:, word, BEGINS, None], before + exact[:, word, GOES_ON, None])
        chosen, rest = longer.where(inside, chosen), either(rest, chosen).where(inside, rest)
        tables.append((chosen, rest))
    return exact, tables


def _ends(structure: Any, lengths: Tensor, tables: list[Table]) -> Tensor:
    """`(batch, 2, largest + 1)`, of whole rows: with the last word, and without it; as many words as there may be."""
    least, most = structure.bounds(lengths)
    whole = torch.stack(tables[-1], 1)
    counts = torch.arange(whole.shape[2], device=whole.device)
    wrong = (counts < least[:, None]) | (counts > most[:, None])
    return whole.masked_fill(wrong.view(len(whole), 1, whole.shape[2], *[1] * (whole.dim() - 3)), FORBIDDEN)


def _traced(
    exact: Tensor,
    tables: list[Table],
    ends: Tensor,
    lengths: Tensor,
    take: Callable[[Tensor, Tensor], Tensor],
    choose: Callable[[Tensor], Tensor],
) -> Tensor:
    """0/1, of the shape of the scores: what `choose` picks at the end, and `take(one, other)` word by word before it."""
    found = torch.zeros_like(exact)
    if not exact.shape[1]:
        return found
    picked = choose(ends.flatten(1))
    has_word, count = picked < ends.shape[2], picked % ends.shape[2]
    for word in range(exact.shape[1] - 1, -1, -1):
        inside = word < lengths
        chosen, rest = tables[word]
        fewer = (count - 1).clamp(min=0)[:, None]
        alone = rest.gather(1, fewer)[:, 0] + exact[:, word, BEGINS]
        longer = chosen.gather(1, fewer)[:, 0] + exact[:, word, GOES_ON]
        without = rest.gather(1, count[:, None])[:, 0], chosen.gather(1, count[:, None])[:, 0]
        own = take(torch.where(has_word, longer, without[1]), torch.where(has_word, alone, without[0]))
        takes = has_word & inside
        found[:, word, GOES_ON] = (takes & own).double()
        found[:, word, BEGINS] = (takes & ~own).double()
        count = count - takes.long()
        has_word = own.where(inside, has_word)
    return found
