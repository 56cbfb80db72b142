"""The kernels on segmentations with tensors in and out.

`segments (batch, n, longest, labels)` and `transitions` are checked, with -inf for what is forbidden; the latter are
`(labels, labels)`, `(batch, labels, labels)`, or `(0, 0)` where none are scored. Choices `(batch, n)` name the segment that
begins at each word, `(length - 1) · labels + label`, or are -1.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_latent.inference.cpu.batch import NO_STRUCTURE, Batch, array
from hf_latent.inference.cpu.simd import WIDTH
from hf_latent.inference.cpu.threads import run_groups, scratch
from hf_latent.structures.segmentation.cpu import k_best, kernels


class Sentences(Batch):
    """A batch of sentences on its way through the kernels."""

    def __init__(self, segments: Tensor, transitions: Tensor, lengths: Tensor) -> None:
        n, longest, self.labels = segments.shape[1:]
        super().__init__(
            segments.reshape(len(segments), n, longest * self.labels), lengths, n, lambda scores, _: torch.ones_like(scores)
        )
        self.links, self.longest = links_of(transitions), longest

    def go(
        self,
        kernel: Any,
        nanoseconds: float,
        inputs: tuple[Any, ...],
        outputs: tuple[Any, ...],
        remembered: tuple[bool, bool] = (True, True),
        times: int = 1,
        required: bool = True,
    ) -> None:
        """Calls the kernel for all groups; one takes about so many `nanoseconds` for a term of each word.

        It finds room for what `charts` holds, so many `times`: of all places, and of the shares at all of them, if these are
        `remembered`.

        Raises:
            ValueError: a row without a structure, if one is `required`.
        """
        linked = self.links.shape[1] > 0

        def work(first: int, last: int) -> None:
            size = self.largest_size(first)
            kept, steps = size + 1 if remembered[0] else self.longest + 1, max(size, 1) if remembered[1] else 1
            numbers = times * kernels.room(kept, steps, self.longest, self.labels, linked) * WIDTH
            arguments = self.sizes, self.order, first, last, scratch(numbers)[:numbers]
            kernel(self.values, self.links, self.labels, *inputs, *arguments, *outputs, self.status, self.cancelled)

        terms = self.labels * (self.longest + (self.labels if linked else 0)) + 10
        self.run(work, nanoseconds * terms, 1, required=required)


def links_of(transitions: Tensor) -> np.ndarray:
    """As the kernels take them: `(batch, labels²)`, or `(1, labels²)`, or `(1, 0)`, in float64."""
    return array(transitions.double()).reshape(*transitions.shape[:-2] or (1,), transitions.shape[-1] ** 2)


def argmax(segments: Tensor, transitions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The choices of a best segmentation, `(batch, n)`; and which rows have one, `(batch,)`."""
    batch = Sentences(segments, transitions, lengths)
    found = np.full(batch.values.shape[:2], -1)
    batch.go(kernels.best_segments, 5, (), (found,), (True, False), required=False)
    exists = batch.status != NO_STRUCTURE
    found[~exists] = -1  # what was gone back before there was nothing more
    return torch.from_numpy(found), torch.from_numpy(exists)


def log_partition(segments: Tensor, transitions: Tensor, lengths: Tensor) -> Tensor:
    """`(batch,)` in float64."""
    batch = Sentences(segments, transitions, lengths)
    out = np.zeros(len(batch.values))
    batch.go(kernels.log_partition, 15, (), (out,), (False, False))
    return torch.from_numpy(out)


def expectations(segments: Tensor, transitions: Tensor, lengths: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of segments times each row's weight; how often each transition is expected, in the shape of these."""
    batch = Sentences(segments, transitions, lengths)
    found, links = np.zeros_like(batch.values), np.zeros((len(segments), batch.links.shape[1]))
    batch.go(kernels.expectations, 20, (array(weights.double()),), (found, links))
    return torch.from_numpy(found).view(segments.shape), _summed(links, transitions)


def expectations_derivative(
    segments: Tensor,
    transitions: Tensor,
    lengths: Tensor,
    weights: Tensor,
    segment_direction: Tensor,
    transition_direction: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of the expectations when the scores move along the directions, and those of log Z, `(batch,)`."""
    batch = Sentences(segments, transitions, lengths)
    found, links = np.zeros_like(batch.values), np.zeros((len(segments), batch.links.shape[1]))
    rates = np.zeros(len(segments))
    along = array(segment_direction.double()).reshape(batch.values.shape), links_of(transition_direction)
    batch.go(kernels.expectations_derivative, 40, (array(weights.double()), *along), (found, links, rates), times=2)
    return torch.from_numpy(found).view(segments.shape), _summed(links, transitions), torch.from_numpy(rates)


def sample(segments: Tensor, transitions: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
    """Drawn choices, `(samples, batch, n)`, one segmentation for each of `seeds (samples, batch)`."""
    batch = Sentences(segments, transitions, lengths)
    found = np.full((len(seeds), *batch.values.shape[:2]), -1)
    batch.go(kernels.sample_segments, 15 + 2 * len(seeds), (seeds.contiguous().numpy().view(np.uint64),), (found,))
    return torch.from_numpy(found)


def top_k(segments: Tensor, transitions: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The choices of the k best segmentations, `(batch, k, n)`, -1 for none; and their scores `(batch, k)` in float64."""
    batch = Sentences(segments, transitions, lengths)
    found, scores = np.full((len(segments), k, segments.shape[1]), -1), np.full((len(segments), k), -np.inf)

    def work(first: int, last: int) -> None:
        k_best.k_best_segments(
            batch.values, batch.links, batch.labels, batch.sizes, first, last, found, scores, batch.cancelled
        )

    if len(segments):
        terms = batch.values.shape[2] + batch.links.shape[1]
        run_groups(work, 10.0 * k * terms * (batch.sizes + 1.0), batch.cancelled)
    return torch.from_numpy(found), torch.from_numpy(scores)


def _summed(links: np.ndarray, transitions: Tensor) -> Tensor:
    """Of all sentences, one after the other, where they are scored alike: whatever the threads did."""
    found = torch.from_numpy(links)
    return (found if transitions.dim() == 3 else found.sum(0)).reshape(transitions.shape)
