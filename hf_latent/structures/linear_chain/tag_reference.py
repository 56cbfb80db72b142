"""Chains with scores of tags and of pairs of them, by the readable recursions: in float64, on any device.

`emissions (batch, n, tags)` and `transitions (tags, tags)` or `(batch, n - 1, tags, tags)` are checked, with -inf for what is
forbidden; each row of `lengths (batch,)` words has a sequence that is allowed.
"""

import torch
from torch import Tensor

from hf_latent.inference.derivatives import weighted_gradient, weighted_gradient_derivative
from hf_latent.inference.normalize import FORBIDDEN
from hf_latent.inference.random import uniforms


def forward(emissions: Tensor, transitions: Tensor, lengths: Tensor, best: bool = False) -> list[Tensor]:
    """For each word, the log-sum (or the maximum) over all beginnings that end in each tag, `(batch, tags)`.

    Beyond a sentence, those of its last word.
    """
    nodes, pairs = (scores.double().masked_fill(scores.isneginf(), FORBIDDEN) for scores in (emissions, transitions))
    totals = [nodes[:, 0]] if nodes.shape[1] else []
    for word in range(1, nodes.shape[1]):
        extended = totals[-1][:, :, None] + (pairs[:, word - 1] if pairs.dim() == 4 else pairs)
        now = (extended.amax(1) if best else extended.logsumexp(1)) + nodes[:, word]
        totals.append(now.clamp(min=FORBIDDEN).where((word < lengths)[:, None], totals[-1]))
    return totals


def log_partition(emissions: Tensor, transitions: Tensor, lengths: Tensor) -> Tensor:
    """log Z, `(batch,)`; differentiable twice."""
    totals = forward(emissions, transitions, lengths)
    if not totals:
        return emissions.double().sum((1, 2))
    return totals[-1].logsumexp(1).where(lengths > 0, 0.0)


def expectations(emissions: Tensor, transitions: Tensor, lengths: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the weighted sum of log Z, in the shapes of `emissions` and `transitions`."""
    return weighted_gradient(lambda nodes, pairs: log_partition(nodes, pairs, lengths), (emissions, transitions), weights)


def expectations_derivative(
    emissions: Tensor,
    transitions: Tensor,
    lengths: Tensor,
    weights: Tensor,
    node_direction: Tensor,
    pair_direction: Tensor,
) -> tuple[Tensor, ...]:
    """Its derivative when the scores move along the directions, and that of each row's log Z."""
    outside = torch.arange(emissions.shape[1], device=lengths.device) >= lengths[:, None]
    along = node_direction.double().masked_fill(outside[:, :, None] | emissions.isneginf(), 0.0)
    pairs_along = pair_direction.double().masked_fill(transitions.isneginf(), 0.0)
    if pairs_along.dim() == 4:
        pairs_along = pairs_along.masked_fill(outside[:, 1:, None, None], 0.0)
    return weighted_gradient_derivative(
        lambda nodes, pairs: log_partition(nodes, pairs, lengths), (emissions, transitions), weights, (along, pairs_along)
    )


def argmax(emissions: Tensor, transitions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The tags of a best sequence, `(batch, n)`, -1 beyond; and which rows have one, `(batch,)`."""
    totals = forward(emissions, transitions, lengths, best=True)
    if not totals:
        return lengths.new_empty(len(lengths), 0), torch.ones_like(lengths, dtype=torch.bool)
    found = _traced(totals, transitions, lengths, lambda scores, _: scores.argmax(1))
    return found, (totals[-1].amax(1) > FORBIDDEN / 2) | (lengths == 0)


def max_marginals(emissions: Tensor, transitions: Tensor, lengths: Tensor) -> Tensor:
    """`(batch, n, tags)`, the score of the best sequence that has each tag at each word; -inf where none has, 0 beyond."""
    totals = forward(emissions, transitions, lengths, best=True)
    nodes, pairs = (scores.double().masked_fill(scores.isneginf(), FORBIDDEN) for scores in (emissions, transitions))
    found = torch.zeros_like(nodes)
    onward = torch.zeros_like(nodes[:, 0]) if totals else nodes  # of what comes after the word
    for word in range(len(totals) - 1, -1, -1):
        found[:, word] = totals[word] + onward
        if word:
            step = pairs[:, word - 1] if pairs.dim() == 4 else pairs
            before = (step + (nodes[:, word] + onward)[:, None, :]).amax(2).clamp(min=FORBIDDEN)
            onward = before.where((word < lengths)[:, None], 0.0)
    words = torch.arange(len(totals), device=lengths.device)
    return found.masked_fill(found < FORBIDDEN / 2, -torch.inf).masked_fill((words >= lengths[:, None])[:, :, None], 0.0)


def sample(emissions: Tensor, transitions: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
    """Drawn tags, `(samples, batch, n)`, -1 beyond, going back from the last word."""
    samples, batch = seeds.shape
    rows = torch.arange(batch, device=seeds.device).repeat(samples)
    totals = [total[rows] for total in forward(emissions, transitions, lengths)]
    random = uniforms(seeds.flatten(), emissions.shape[1])

    def draw(scores: Tensor, word: int) -> Tensor:
        steps = scores.softmax(1).cumsum(1)
        drawn = torch.searchsorted(steps, random[:, word, None] * steps[:, -1:], right=True)[:, 0]
        last = (scores > FORBIDDEN / 2).int().cumsum(1).argmax(1)  # where rounding carried it past the end
        return torch.minimum(drawn, last)

    pairs = transitions[rows] if transitions.dim() == 4 else transitions
    if not totals:
        return seeds.new_empty(samples, batch, 0)
    return _traced(totals, pairs, lengths[rows], draw).view(samples, batch, -1)


def _traced(totals: list[Tensor], transitions: Tensor, lengths: Tensor, choose) -> Tensor:  # type: ignore[no-untyped-def]
    """The tags that `choose(scores, word)` picks, from the last word to the first."""
    pairs = transitions.double().masked_fill(transitions.isneginf(), FORBIDDEN)
    found = [lengths]
    for word in range(len(totals) - 1, -1, -1):
        scores = totals[word]
        if word < len(totals) - 1:
            step = pairs[:, word] if pairs.dim() == 4 else pairs.expand(len(lengths), *pairs.shape)
            following = step.gather(2, found[0].view(-1, 1, 1).expand(-1, step.shape[1], 1))[:, :, 0]
            scores = scores + following.where((word < lengths - 1)[:, None], 0.0)
        found.insert(0, choose(scores, word))
    words = torch.arange(len(totals), device=lengths.device)
    return torch.stack(found[:-1], 1).masked_fill(words >= lengths[:, None], -1)
