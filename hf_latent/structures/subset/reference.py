"""The readable algorithms on subsets, in float64 on any device: what the kernels are held against."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_latent.inference.algorithms import Algorithms, Projection
from hf_latent.inference.checks import checked_start, in_reach
from hf_latent.inference.normalize import FORBIDDEN
from hf_latent.inference.random import uniforms
from hf_latent.structures.subset import selection


class SubsetReference(Algorithms):
    """By a recursion over the items that counts how many are chosen so far: elementary symmetric polynomials, as log-sums."""

    def argmax(self, structure: Any, scores: Tensor, lengths: Tensor, required: bool = True) -> Tensor:
        """The items of highest score."""
        return selection.best(structure, scores, lengths, required)

    def has_structure(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """Which rows have enough items."""
        return selection.has_enough(structure, scores, lengths)

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """`(batch,)`; differentiable twice."""
        own = selection.weights(structure, scores, lengths)
        # Of the scores themselves, which are what is differentiated by, the weights are constants apart.
        exact = scores.double().masked_fill(own.within.isneginf(), 0.0)
        within, without, ends = _finite(own.within + exact - exact.detach(), own.without, own.ends)
        table = _first(ends)
        for item in range(exact.shape[1]):
            with_item = pad(table[:, :-1], (1, 0), value=FORBIDDEN) + within[:, item, None]
            both = _log_add(table + without[:, item, None], with_item).clamp(min=FORBIDDEN)
            table = both.where((item < lengths)[:, None], table)
        return own.offsets + (table + ends).logsumexp(1)

    def sample(self, structure: Any, scores: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """`(samples, batch, n)`, 0 for a chosen item and -1 for all others, item by item."""
        within, without, ends = _finite(*selection.weights(structure, scores, lengths)[:3])
        onward = [ends]  # log-sums of what may come after an item, by how many are chosen before
        for item in range(within.shape[1] - 1, -1, -1):
            with_item = pad(onward[0][:, 1:], (0, 1), value=FORBIDDEN) + within[:, item, None]
            both = _log_add(onward[0] + without[:, item, None], with_item).clamp(min=FORBIDDEN)
            onward.insert(0, both.where((item < lengths)[:, None], onward[0]))
        samples, batch = seeds.shape
        random = uniforms(seeds, within.shape[1])
        chosen, counts = torch.full((samples, batch, within.shape[1]), -1, device=seeds.device), torch.zeros_like(seeds)
        for item in range(within.shape[1]):
            following = pad(onward[item + 1], (0, 1), value=FORBIDDEN).expand(samples, -1, -1)
            left_out = following.gather(2, counts[..., None])[..., 0] + without[:, item]
            taken = following.gather(2, counts[..., None] + 1)[..., 0] + within[:, item]
            takes = (random[..., item] < (taken - left_out).sigmoid()) & (taken > FORBIDDEN / 2) | (left_out < FORBIDDEN / 2)
            takes &= item < lengths
            chosen[..., item].masked_fill_(takes, 0)
            counts = counts + takes
        return chosen

    def top_k(self, structure: Any, scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """`(batch, k, n)`, 0 for a chosen item and -1 for all others; by keeping the k best ways to each count."""
        own = selection.weights(structure, scores, lengths)
        within, without, ends = _finite(*own[:3])
        batch, n = within.shape
        values = pad(_first(ends)[..., None], (0, k - 1), value=FORBIDDEN)
        sources = []
        for item in range(n):
            inside = (item < lengths)[:, None, None]
            shifted = pad(values[:, :-1], (0, 0, 1, 0), value=FORBIDDEN) + within[:, item, None, None]
            kept = (values + without[:, item, None, None]).where(inside, values)
            both = torch.cat([kept, shifted.masked_fill(~inside, FORBIDDEN)], 2)
            values, source = both.clamp(min=FORBIDDEN).sort(dim=2, descending=True, stable=True)
            values, source = values[..., :k], source[..., :k]
            sources.append(source)
        best, place = (values + ends[..., None]).flatten(1).sort(dim=1, descending=True, stable=True)
        missing = max(k - best.shape[1], 0)
        best, place = pad(best[:, :k], (0, missing), value=FORBIDDEN), pad(place[:, :k], (0, missing))
        count, rank = place // k, place % k
        chosen = torch.full((batch, k, n), -1, device=scores.device)
        rows = torch.arange(batch, device=scores.device)[:, None]
        for item in range(n - 1, -1, -1):
            source = sources[item][rows, count, rank]
            takes = source >= k
            chosen[:, :, item].masked_fill_(takes, 0)
            count, rank = count - takes.long(), source % k
        exists = best > FORBIDDEN / 2
        values = (best + own.offsets[:, None]).masked_fill(~exists, -torch.inf)
        return chosen.masked_fill(~exists[..., None], -1), values

    def sparsemap(
        self, structure: Any, scores: Tensor, lengths: Tensor, start: Tensor | None, tol: float, max_iter: int
    ) -> Projection:
        """Exact, whatever the tolerance and the start, by sorting."""
        if start is not None:
            allowed = in_reach(scores, structure.positions(scores, lengths))
            checked_start(start, allowed, lambda own: self.argmax(structure, own, lengths))
        point = selection.projection(structure, scores, lengths)
        subsets, weights, counts = selection.made_of(point)
        choices = (subsets > 0.5).long() - 1
        gaps = torch.zeros_like(counts, dtype=torch.float64)
        return Projection(point, choices, weights, counts, gaps, torch.ones_like(counts, dtype=torch.bool))


def _log_add(one: Tensor, other: Tensor) -> Tensor:
    """log(exp + exp), with second derivatives also where they lie far apart (`torch.logaddexp` has none there)."""
    return torch.stack([one, other]).logsumexp(0)


def _finite(*weights: Tensor) -> list[Tensor]:
    return [own.masked_fill(own.isneginf(), FORBIDDEN) for own in weights]


def _first(ends: Tensor) -> Tensor:
    """`(batch, largest + 1)`: before the first item, none is chosen."""
    table = torch.full_like(ends, FORBIDDEN)
    table[:, 0] = 0.0
    return table
