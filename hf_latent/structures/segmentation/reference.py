"""Segmentations by the readable recursions: in float64, on any device.

`segments (batch, n, longest, labels)` and `transitions` (`(labels, labels)`, `(batch, labels, labels)`, or `(0, 0)` where none
are scored) are checked, with -inf for what is forbidden; each row of `lengths (batch,)` words has a segmentation that is
allowed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.algorithms import Algorithms, vertices_of
from hf_latent.inference.derivatives import weighted_gradient, weighted_gradient_derivative
from hf_latent.inference.normalize import FORBIDDEN
from hf_latent.inference.random import uniforms


class SegmentationReference(Algorithms):
    """Of `Segmentation`; marginals and their derivatives, projections and the k best follow from these."""

    def argmax(self, structure: Any, scores: Tensor, lengths: Tensor, required: bool = True) -> Tensor:
        """The segments of a best segmentation, going back from the end."""
        choices, exists = argmax(scores, scores.new_zeros(0, 0), lengths)
        found = vertices_of(structure, choices, tuple(scores.shape[1:]), torch.float64)
        return found if required else found * exists[:, None, None, None]

    def has_structure(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """Which rows have a segmentation without a forbidden segment, `(batch,)`."""
        return argmax(scores, scores.new_zeros(0, 0), lengths)[1]

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """log Z, `(batch,)`."""
        return log_partition(scores, scores.new_zeros(0, 0), lengths)

    def sample(self, structure: Any, scores: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """Drawn choices, `(samples, batch, n)`."""
        return sample(scores, scores.new_zeros(0, 0), lengths, seeds)


def forward(segments: Tensor, transitions: Tensor, lengths: Tensor, best: bool = False) -> tuple[Tensor, Tensor]:
    """The log-sums (or maxima) over all beginnings, for each number of words: `(batch, n + 1, labels)`, twice.

    Of those that end with a segment of each label, and of those that a segment of each label can follow.
    """
    scores, links = _finite(segments, lengths), _finite(transitions)
    batch, n, longest, labels = scores.shape

    def total(terms: Tensor, dim: int, keepdim: bool = False) -> Tensor:
        return (terms.amax(dim, keepdim) if best else terms.logsumexp(dim, keepdim)).clamp(min=FORBIDDEN)

    exits, entries = [scores.new_zeros(batch, labels)], [scores.new_zeros(batch, labels)]
    for end in range(1, n + 1):
        sizes = torch.arange(1, min(longest, end) + 1, device=scores.device)
        exits.append(total(scores[:, end - sizes, sizes - 1] + torch.stack(entries[: -longest - 1 : -1], 1), 1))
        if links.numel():
            entries.append(total(exits[-1][:, :, None] + links, 1))
        else:
            entries.append(total(exits[-1], 1, keepdim=True).expand(batch, labels))
    return torch.stack(exits, 1), torch.stack(entries, 1)


def log_partition(segments: Tensor, transitions: Tensor, lengths: Tensor) -> Tensor:
    """log Z, `(batch,)`; differentiable twice."""
    exits, _ = forward(segments, transitions, lengths)
    rows = torch.arange(len(lengths), device=lengths.device)
    return exits[rows, lengths].logsumexp(1).where(lengths > 0, 0.0)


def expectations(segments: Tensor, transitions: Tensor, lengths: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the weighted sum of log Z, in the shapes of `segments` and `transitions`."""
    return weighted_gradient(lambda scores, links: log_partition(scores, links, lengths), (segments, transitions), weights)


def expectations_derivative(
    segments: Tensor,
    transitions: Tensor,
    lengths: Tensor,
    weights: Tensor,
    segment_direction: Tensor,
    transition_direction: Tensor,
) -> tuple[Tensor, ...]:
    """Its derivative when the scores move along the directions, and that of each row's log Z."""
    inside = positions(segments, lengths)
    along = segment_direction.double().masked_fill(~inside | segments.isneginf(), 0.0)
    links_along = transition_direction.double().masked_fill(transitions.isneginf(), 0.0)
    return weighted_gradient_derivative(
        lambda scores, links: log_partition(scores, links, lengths), (segments, transitions), weights, (along, links_along)
    )


def argmax(segments: Tensor, transitions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The choices of a best segmentation, `(batch, n)`; and which rows have one, `(batch,)`."""
    exits, entries = forward(segments, transitions, lengths, best=True)
    found = _traced(exits, entries, segments, transitions, lengths, lambda scores: scores.argmax(1))
    rows = torch.arange(len(lengths), device=lengths.device)
    return found, (exits[rows, lengths].amax(1) > FORBIDDEN / 2) | (lengths == 0)


def sample(segments: Tensor, transitions: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
    """Drawn choices, `(samples, batch, n)`, one segmentation for each of `seeds (samples, batch)`."""
    samples, batch = seeds.shape
    rows = torch.arange(batch, device=seeds.device).repeat(samples)
    random = iter(uniforms(seeds.flatten(), 2 * segments.shape[1]).unbind(1))

    def draw(scores: Tensor) -> Tensor:
        steps = scores.softmax(1).cumsum(1)
        drawn = torch.searchsorted(steps, next(random)[:, None] * steps[:, -1:], right=True)[:, 0]
        last = (scores > FORBIDDEN / 2).int().cumsum(1).argmax(1)  # where rounding carried it past the end
        return torch.minimum(drawn, last)

    exits, entries = forward(segments, transitions, lengths)
    own = transitions[rows] if transitions.dim() == 3 else transitions
    found = _traced(exits[rows], entries[rows], segments[rows], own, lengths[rows], draw)
    return found.view(samples, batch, segments.shape[1])


def positions(segments: Tensor, lengths: Tensor) -> Tensor:
    """True for segments that end within the sentence, in the shape of `segments (batch, n, longest, labels)`."""
    n, longest = segments.shape[1:3]
    words, sizes = (torch.arange(size, device=segments.device) for size in (n, longest))
    inside = words[:, None] + sizes < lengths[:, None, None]
    return inside[..., None].expand(segments.shape)


def _finite(scores: Tensor, lengths: Tensor | None = None) -> Tensor:
    forbidden = scores.isneginf()
    return scores.double().masked_fill(forbidden if lengths is None else forbidden | ~positions(scores, lengths), FORBIDDEN)


def _traced(
    exits: Tensor,
    entries: Tensor,
    segments: Tensor,
    transitions: Tensor,
    lengths: Tensor,
    choose: Callable[[Tensor], Tensor],
) -> Tensor:
    """What `choose(scores)` picks, of the labels that end at a place and of the lengths of such a segment, from the end on."""
    scores, links = _finite(segments, lengths), _finite(transitions)
    batch, n, longest, labels = scores.shape
    rows, sizes = torch.arange(batch, device=scores.device), torch.arange(1, longest + 1, device=scores.device)
    links = links.expand(batch, labels, labels) if links.numel() else scores.new_zeros(batch, labels, labels)
    found, end = torch.full((batch, n + 1), -1, device=scores.device), lengths
    following = scores.new_zeros(batch, labels)
    for _ in range(n):
        label = choose(exits[rows, end] + following)
        begin = (end[:, None] - sizes).clamp(min=0)
        terms = (
            scores[rows[:, None], begin.clamp(max=n - 1), sizes - 1, label[:, None]]
            + entries[rows[:, None], begin, label[:, None]]
        )
        size = choose(terms.masked_fill(sizes > end[:, None], FORBIDDEN))
        goes_on = end > 0
        end = (end - size - 1).clamp(min=0).where(goes_on, 0)
        found[rows, end.where(goes_on, n)] = size * labels + label
        following = links[rows, :, label]
    return found[:, :n]
