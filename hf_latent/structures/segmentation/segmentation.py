"""Segmentations: a sentence is cut into segments, each of which has a label."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_latent.inference.checks import check_count, check_floating, describe
from hf_latent.structures.declared import DeclaredStructure, declare
from hf_latent.structures.segmentation import reference
from hf_latent.structures.segmentation.cpu.unlinked import SegmentationKernels

LARGEST_ENUMERATION = 300_000


@declare("segmentation", reference=reference.SegmentationReference(), cpu=SegmentationKernels())
@dataclass(frozen=True)
class Segmentation(DeclaredStructure):
    """All ways to cut the words of a sentence into segments of at most `max_length` words, and to label each.

    `scores[b, i, l, y]`, shape `(batch, n, max_length, labels)`: the segment that begins at word i, has l + 1 words, and label
    y. `lengths (batch,)` is the number of words; segments that end beyond are ignored on input and exactly 0 on output. A score
    of -inf forbids the segment. A sentence without words has one (empty) segmentation. A semi-Markov model (Sarawagi and Cohen
    2004) without transitions, for which see `SegmentScores`.

    Attributes:
        max_length: how many words a segment has at most.
        labels: how many labels there are.

    Every operation costs O(n · max_length · labels) a sentence in n steps; `sparsemap` some such argmaxes, `top_k` k times as
    much at most.
    """

    max_length: int
    labels: int = 1

    event_dims: ClassVar[int] = 3
    group_dims: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_count("max_length", self.max_length)
        check_count("labels", self.labels)

    def check_shape(self, scores: object, name: str = "scores") -> Tensor:
        """`scores`, or an error that names what is wrong with their type or shape."""
        scores = check_floating(scores, "(batch, n, max_length, labels)", 4, name)
        if scores.shape[2:] != (self.max_length, self.labels):
            raise ValueError(
                f"`{name}` must have shape (batch, n, {self.max_length}, {self.labels}): for each word at which a segment may "
                f"begin, a row for each number of words and a column for each label; got {describe(scores)}."
            )
        return scores

    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True for segments that end within the sentence."""
        return reference.positions(scores, lengths)

    def num_parts(self, lengths: Tensor) -> Tensor:
        """One for each word, in segments of one word."""
        return lengths

    def enumerate(self, size: int) -> Tensor:
        """All segmentations of `size` words, `(count, size, max_length, labels)`.

        Raises:
            ValueError: more than 300,000 of them.
        """
        counts = [1]
        for end in range(1, size + 1):
            counts.append(self.labels * sum(counts[max(end - self.max_length, 0) :]))
        if counts[size] > LARGEST_ENUMERATION:
            raise ValueError(
                f"`size` must be such that there are at most {LARGEST_ENUMERATION} segmentations, got {size}, of which "
                f"{self!r} has {counts[size]}."
            )
        of_size = [torch.zeros(1, size, self.max_length, self.labels)]
        for end in range(1, size + 1):
            longer = []
            for length in range(1, min(self.max_length, end) + 1):
                for label in range(self.labels):
                    added = of_size[end - length].clone()
                    added[:, end - length, length - 1, label] = 1.0
                    longer.append(added)
            of_size.append(torch.cat(longer))
        return of_size[size]
