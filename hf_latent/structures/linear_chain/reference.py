"""Chains by the readable recursions: Viterbi for the maximum, the forward algorithm for the sum; in float64, on any device."""

from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.algorithms import Algorithms, vertices_of
from hf_latent.inference.normalize import normalize


class ChainReference(Algorithms):
    """Of `LinearChain`; marginals and their derivatives, samples, projections and the k best follow from these two."""

    def argmax(self, structure: Any, scores: Tensor, lengths: Tensor, required: bool = True) -> Tensor:
        """The pairs of a best sequence, `(batch, n - 1, tags, tags)`, going back from the best last tag."""
        pairs = normalize(scores, structure.positions(scores, lengths), 2)[0]
        best = pairs.new_zeros(len(pairs), structure.tags)
        came_from = []
        for place in range(pairs.shape[1]):
            inside = (place < lengths - 1)[:, None]
            value, tag = (best[:, :, None] + pairs[:, place]).max(1)
            best = value.where(inside, best)
            came_from.append(tag.where(inside, torch.arange(structure.tags, device=tag.device)))
        tags = [best.argmax(1)]
        for tag in reversed(came_from):
            tags.insert(0, tag.gather(1, tags[0][:, None])[:, 0])
        sequence = torch.stack(tags, 1)
        inside = torch.arange(pairs.shape[1], device=pairs.device) < lengths[:, None] - 1
        choices = (sequence[:, :-1] * structure.tags + sequence[:, 1:]).where(inside, -1)
        found = vertices_of(structure, choices, tuple(scores.shape[1:]), torch.float64)
        return found if required else found * self.has_structure(structure, scores, lengths)[:, None, None, None]

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """log Z, `(batch,)`."""
        pairs, offset = normalize(scores, structure.positions(scores, lengths), 2)
        total = pairs.new_zeros(len(pairs), structure.tags)
        for place in range(pairs.shape[1]):
            extended = (total[:, :, None] + pairs[:, place]).logsumexp(1)
            total = extended.where((place < lengths - 1)[:, None], total)
        return total.logsumexp(1).where(lengths > 1, 0.0) + offset
