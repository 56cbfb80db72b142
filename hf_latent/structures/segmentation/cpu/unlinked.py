"""The kernels behind the contract of all algorithms: segmentations whose neighbours do not matter to each other."""

from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.algorithms import Algorithms, vertices_of
from hf_latent.inference.checks import check_structures
from hf_latent.structures.segmentation.cpu import operations


class SegmentationKernels(Algorithms):
    """Of `Segmentation`, on the CPU; projections follow from the argmax."""

    def argmax(self, structure: Any, scores: Tensor, lengths: Tensor, required: bool = True) -> Tensor:
        """The segments of a best segmentation."""
        choices, exists = operations.argmax(scores, _no_transitions(scores), lengths)
        if required:
            check_structures(exists)
        return vertices_of(structure, choices, tuple(scores.shape[1:]), torch.float64)

    def has_structure(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """Which rows have a segmentation without a forbidden segment, `(batch,)`."""
        return operations.argmax(scores, _no_transitions(scores), lengths)[1]

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """`(batch,)` in float64."""
        return operations.log_partition(scores, _no_transitions(scores), lengths)

    def marginals(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """The probability of each segment."""
        return operations.expectations(scores, _no_transitions(scores), lengths, scores.new_ones(len(scores)))[0]

    def marginals_derivative(self, structure: Any, scores: Tensor, lengths: Tensor, direction: Tensor) -> Tensor:
        """The derivative of the marginals along a `direction`."""
        nothing = _no_transitions(scores)
        weights = scores.new_ones(len(scores))
        return operations.expectations_derivative(scores, nothing, lengths, weights, direction, nothing)[0]

    def sample(self, structure: Any, scores: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """Drawn choices, `(samples, batch, n)`, going back from the end."""
        return operations.sample(scores, _no_transitions(scores), lengths, seeds)

    def top_k(self, structure: Any, scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """By one pass that keeps the k best beginnings at each place."""
        return operations.top_k(scores, _no_transitions(scores), lengths, k)


def _no_transitions(scores: Tensor) -> Tensor:
    return scores.new_zeros(0, 0)
