"""What needs sorting alone, on any device: the best subset, and the projection onto the convex hull of all of them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_latent.inference.checks import in_reach, raise_no_structure

# Sums of a row's entries that are whole numbers are so to this.
ROUNDING = 1e-10


def allowed_items(scores: Tensor, lengths: Tensor) -> Tensor:
    """Which items there are in each row that are not forbidden, `(batch, n)`."""
    return in_reach(scores, torch.arange(scores.shape[1], device=scores.device) < lengths[:, None])


def has_enough(structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
    """Which rows have as many items that are not forbidden as are to be chosen, `(batch,)`."""
    return allowed_items(scores, lengths).sum(1) >= structure.bounds(lengths)[0]


def best(structure: Any, scores: Tensor, lengths: Tensor, required: bool = True) -> Tensor:
    """The items of highest score, `(batch, n)`: those above 0, but so many at least and at most; the first of those alike."""
    allowed = allowed_items(scores, lengths)
    least, most = structure.bounds(lengths)
    enough = allowed.sum(1) >= least
    if required and not enough.all():
        raise_no_structure(int((~enough).nonzero()[0]))
    order = scores.double().masked_fill(~allowed, -torch.inf).argsort(dim=1, descending=True, stable=True)
    wanted = ((scores > 0) & allowed).sum(1).clamp(min=least, max=most)
    ranks = torch.arange(scores.shape[1], device=scores.device) < wanted.where(enough, 0)[:, None]
    return torch.zeros_like(allowed).scatter(1, order, ranks).to(scores.dtype)


def projection(structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
    """The point nearest to the scores in the convex hull of all subsets, `(batch, n)` in float64.

    That hull has all entries from 0 to 1 whose sum is within the bounds. The point is min(max(s - τ, 0), 1), with a threshold τ
    of 0 where the sum is within the bounds as it is, and otherwise that by which it meets one: between two of the places s and
    s - 1 where an entry leaves 0 or 1, found by sorting these. (Projection onto a capped simplex: Wang and Lu 2015.)
    """
    allowed = allowed_items(scores, lengths)
    least, most = structure.bounds(lengths)
    exact = scores.double().masked_fill(~allowed, 0.0)
    free = exact.clamp(0, 1)
    total = free.sum(1)
    target = total.clamp(min=least.double(), max=torch.minimum(most, allowed.sum(1)).double())
    if not exact.shape[1]:
        return free
    # The threshold lies below the score of that rank. What is 2 and more from there is in, or out, as if it were at 2: so sums
    # stay exact.
    ordered = exact.masked_fill(~allowed, -torch.inf).sort(1, descending=True).values
    pivot = ordered.gather(1, (target.ceil().long().clamp(min=1) - 1)[:, None])
    moved = (exact - pivot.masked_fill(pivot.isneginf(), 0.0)).clamp(-2, 2)
    places, order = torch.cat([moved, moved - 1], 1).sort(dim=1, stable=True)
    sums = _sums_above(moved, allowed, places)
    # The last place at which the sum is not below the target, and how many entries lie between 0 and 1 from there on.
    last = (sums >= target[:, None]).sum(1, keepdim=True).clamp(min=1) - 1
    low, sum_low = places.gather(1, last), sums.gather(1, last)
    steps = torch.where(order < exact.shape[1], -1, 1) * allowed.gather(1, order % exact.shape[1])
    inside = steps.cumsum(1).gather(1, last)
    met = (moved - low - (sum_low - target[:, None]) / inside.clamp(min=1)).clamp(0, 1)
    met = met.masked_fill(~allowed | (target == 0)[:, None], 0.0)
    return met.where((total != target)[:, None], free)


class Weights(NamedTuple):
    """Log-weights of the items of each row, of which the best subset has 0 in all, and each other one less in some.

    So sums of subsets near the best one lose no digits, however large the scores are, and all the others do not count.

    Attributes:
        within, without: `(batch, n)`, of an item that is chosen, and of one that is not; -inf where it may not be.
        ends: `(batch, largest + 1)`, of the number of items that are chosen in all; -inf beyond the bounds.
        offsets: `(batch,)`, the score of the best subset, to be added to the log-sum.
        most: `(batch,)`, the largest numbers of items.
    """

    within: Tensor
    without: Tensor
    ends: Tensor
    offsets: Tensor
    most: Tensor


def weights(structure: Any, scores: Tensor, lengths: Tensor) -> Weights:
    """In float64; each score is taken relative to a threshold: that of the best subset where a bound decides it, else 0."""
    allowed = allowed_items(scores, lengths)
    least, most = structure.bounds(lengths)
    exact = scores.detach().double().masked_fill(~allowed, -torch.inf)
    wanted = (exact > 0).sum(1)
    best = wanted.clamp(min=least, max=most)
    thresholds = exact.new_zeros(len(exact), 1)
    if exact.shape[1]:
        ordered = exact.sort(dim=1, descending=True).values
        thresholds = ordered.gather(1, best.clamp(1, exact.shape[1])[:, None] - 1)
        thresholds = thresholds.masked_fill(((wanted >= least) & (wanted <= most))[:, None] | thresholds.isneginf(), 0.0)
    moved = exact - thresholds
    gained = moved.clamp(min=0)
    counts = torch.arange(int(most.max()) + 1 if len(most) else 1, device=scores.device)
    ends = (counts - best[:, None]) * thresholds
    ends = ends.masked_fill((counts < least[:, None]) | (counts > most[:, None]), -torch.inf)
    offsets = gained.masked_fill(~allowed, 0.0).sum(1) + best * thresholds[:, 0]
    return Weights(moved.clamp(max=0), -gained, ends, offsets, most)


def _sums_above(scores: Tensor, allowed: Tensor, thresholds: Tensor) -> Tensor:
    """For each threshold τ, `(batch, places)`, the sum of min(max(s - τ, 0), 1), in time O(n · log n)."""
    ordered = scores.masked_fill(~allowed, -torch.inf).sort(1).values
    sums = torch.nn.functional.pad(ordered.masked_fill(ordered.isneginf(), 0.0).cumsum(1), (1, 0))

    def above(bounds: Tensor) -> Tensor:
        """Σ of s - bound over all s above it."""
        place = torch.searchsorted(ordered, bounds.contiguous(), right=True)
        return sums[:, -1:] - sums.gather(1, place) - (ordered.shape[1] - place) * bounds

    return above(thresholds) - above(thresholds + 1)


def made_of(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Subsets `(count, n)` and weights `(count,)` with the `point (batch, n)` as their mean, and how many each row has.

    Along the row, entries are laid end to end; the subset for an offset u has the items whose piece holds u, u + 1, u + 2, …
    (systematic sampling: Madow 1949). It changes where u passes a fractional part of a sum of entries, so there are at most as
    many subsets as entries, and one more, each with the sum of the entries rounded down or up.
    """
    ends = point.cumsum(1)
    starts = ends - point
    fractions = (ends - (ends + ROUNDING).floor()).clamp(min=0).masked_fill((point <= 0) | (point >= 1), 0.0)
    fractions = (
        torch.cat([torch.zeros_like(fractions[:, :1]), fractions], 1) if fractions.shape[1] else point.new_zeros(len(point), 1)
    )
    offsets = fractions.sort(1).values
    following = torch.cat([offsets[:, 1:], torch.ones_like(offsets[:, :1])], 1)
    weights = following - offsets
    middle = offsets + weights / 2
    # How many of u, u + 1, … lie below the ends of a piece.
    holds = (ends[:, None] - middle[..., None]).ceil() - (starts[:, None] - middle[..., None]).ceil()
    used = weights > ROUNDING
    weights = weights[used] / weights.masked_fill(~used, 0.0).sum(1).repeat_interleave(used.sum(1))
    return holds[used], weights, used.sum(1)
