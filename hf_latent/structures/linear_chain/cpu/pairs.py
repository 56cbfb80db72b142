"""The kernels behind the contract of all algorithms: chains scored by pairs alone, whose tags score nothing by themselves."""

from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.algorithms import Algorithms, vertices_of
from hf_latent.inference.checks import check_structures
from hf_latent.structures.linear_chain.cpu import operations


class ChainKernels(Algorithms):
    """Of `LinearChain`, on the CPU; projections follow from the argmax."""

    def argmax(self, structure: Any, scores: Tensor, lengths: Tensor, required: bool = True) -> Tensor:
        """The pairs of a best sequence, `(batch, n - 1, tags, tags)`."""
        tags, exists = operations.argmax(_no_emissions(scores), scores, lengths)
        if required:
            check_structures(exists)
        choices = _pairs(tags, structure.tags)
        if not required:
            choices = choices.where(exists[:, None], -1)
        return vertices_of(structure, choices, tuple(scores.shape[1:]), torch.float64)

    def has_structure(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """Which rows have a sequence without a forbidden pair, `(batch,)`."""
        return operations.argmax(_no_emissions(scores), scores, lengths)[1]

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """`(batch,)` in float64."""
        return operations.log_partition(_no_emissions(scores), scores, lengths).where(lengths > 1, 0.0)

    def marginals(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """`(batch, n - 1, tags, tags)`."""
        return operations.expectations(_no_emissions(scores), scores, lengths, scores.new_ones(len(scores)))[1]

    def marginals_derivative(self, structure: Any, scores: Tensor, lengths: Tensor, direction: Tensor) -> Tensor:
        """The derivative of the marginals along a `direction`."""
        nothing = _no_emissions(scores)
        weights = scores.new_ones(len(scores))
        return operations.expectations_derivative(nothing, scores, lengths, weights, nothing, direction)[1]

    def sample(self, structure: Any, scores: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """The pairs of drawn sequences, `(samples, batch, n - 1)`, going back from the last word."""
        return _pairs(operations.sample(_no_emissions(scores), scores, lengths, seeds), structure.tags)

    def top_k(self, structure: Any, scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """By one pass that keeps the k best beginnings for each tag."""
        tags, values = operations.top_k(_no_emissions(scores), scores, lengths.where(lengths > 1, 0), k)
        return _pairs(tags, structure.tags), values


def _no_emissions(scores: Tensor) -> Tensor:
    batch, pairs, tags = scores.shape[:3]
    return torch.zeros(batch, pairs + 1, tags, dtype=torch.float64)


def _pairs(tags: Tensor, count: int) -> Tensor:
    """The entry of each pair of neighbours in `tags (..., n)`, -1 beyond the sentence."""
    return (tags[..., :-1] * count + tags[..., 1:]).where(tags[..., 1:] >= 0, -1)
