"""Spans as segments: what labels of words say of a segmentation, and back."""

import torch
from torch import Tensor

from hf_latent.inference.checks import check_count
from hf_latent.layers.span_scheme import SpanScheme

# The places that a word has in its segment, for the rows of `SpanSegments.tags`.
SINGLE, FIRST, INSIDE, LAST = range(4)
OUTSIDE = 0  # the label of segments that are no spans, each of one word


class SpanSegments:
    """The segmentations that the labels of a `SpanScheme` can say: spans of some types, and words outside of them.

    A segment has label 0 if it is a word outside, and 1 + the place of its type in `types` if it is a span.

    Args:
        scheme: what the labels of words mean: BIO or BIOES.
        longest: how many words a span has at most.

    Attributes:
        types: of spans, sorted.
        tags: `(4, 1 + types)`, the label of a word that is alone in its segment, the first of several, within, and the last, by
            the label of the segment; -1 where there is none.
        allowed: `(longest, 1 + types)` in bool, by its number of words (less 1) and label, whether there is such a segment.

    Raises:
        ValueError: labels in IOB1, of which one word's depends on the span before.
    """

    def __init__(self, scheme: SpanScheme, longest: int) -> None:
        check_count("longest", longest)
        if scheme.kind == "IOB1":
            raise ValueError(
                f"`id2label` must be labels in BIO or BIOES for segments, got those of IOB1: {scheme.labels}. Write each span "
                "with a B- label first, and have a B- label for each type."
            )
        self.scheme, self.longest = scheme, longest
        self.types = sorted({kind for role, kind in scheme.parts if role != "outside"})
        numbers = {part: number for number, part in enumerate(scheme.parts)}
        roles = ("single", "begin", "inside", "end") if scheme.kind == "BIOES" else ("begin", "begin", "inside", "inside")
        outside = numbers.get(("outside", ""), -1)
        rows = [[outside, *(numbers.get((role, kind), -1) for kind in self.types)] for role in roles]
        # On the CPU also where a model is made without memory, to be filled from a file: there are no weights here.
        self.tags = torch.tensor(rows, device="cpu")
        known = self.tags >= 0
        sizes = torch.arange(1, longest + 1, device="cpu")[:, None]
        single, several = known[SINGLE], known[FIRST] & known[LAST]
        self.allowed = torch.where(sizes == 1, single, several & (known[INSIDE] | (sizes == 2)))
        self.allowed[1:, OUTSIDE] = False

    def agreeing(self, tags: Tensor) -> Tensor:
        """Which segments agree with known labels of words, `(batch, n, longest, 1 + types)` in bool.

        Args:
            tags: `(batch, n)`, the label of each word; negative where it may be any.

        In time O(n · longest · types). What ends beyond a sentence is not looked at.
        """
        batch, n = tags.shape
        own = self.tags.to(tags.device)
        # At each word, for each place in a segment and label of it: whether its label is another.
        wrong = (tags[:, None, :, None] >= 0) & (tags[:, None, :, None] != own[:, None, :])
        sums = torch.zeros(batch, n + 1, own.shape[1], dtype=torch.long, device=tags.device)
        sums[:, 1:] = wrong[:, INSIDE].cumsum(1)
        found = torch.zeros(batch, n, self.longest, own.shape[1], dtype=torch.bool, device=tags.device)
        for size in range(1, min(self.longest, n) + 1):
            count = n - size + 1  # of first words
            if size == 1:
                found[:, :, 0] = ~wrong[:, SINGLE]
                continue
            within = sums[:, size - 1 : n] == sums[:, 1 : count + 1]
            found[:, :count, size - 1] = ~wrong[:, FIRST, :count] & within & ~wrong[:, LAST, size - 1 :]
        return found & self.allowed.to(tags.device)

    def tags_of(self, choices: Tensor) -> Tensor:
        """The label of each word, `(batch, n)`, from `choices (batch, n)` of `SegmentScores`; -1 beyond the sentence."""
        batch, n = choices.shape
        own, labels = self.tags.to(choices.device), self.tags.shape[1]
        begins, words = choices >= 0, torch.arange(n, device=choices.device).expand(batch, n)
        first = words.where(begins, -1).cummax(1).values
        segment = choices.gather(1, first.clamp(min=0)) if n else choices
        label, size, place = segment % labels, segment // labels + 1, words - first
        role = torch.full_like(words, INSIDE).masked_fill(place == size - 1, LAST).masked_fill(place == 0, FIRST)
        role = role.masked_fill(size == 1, SINGLE)
        return own[role, label].masked_fill((first < 0) | (place >= size), -1)

    def tag_marginals(self, marginals: Tensor) -> Tensor:
        """`(batch, n, tags)`, the probability of each label at each word, from `marginals (batch, n, longest, 1 + types)`."""
        batch, n, longest, labels = marginals.shape
        by_role = marginals.new_zeros(4, batch, n, labels)
        by_role[SINGLE] = marginals[:, :, 0]
        for size in range(2, min(longest, n) + 1):
            own = marginals[:, : n - size + 1, size - 1]
            by_role[FIRST, :, : n - size + 1] += own
            by_role[LAST, :, size - 1 :] += own
            for place in range(1, size - 1):
                by_role[INSIDE, :, place : n - size + 1 + place] += own
        found = marginals.new_zeros(batch, n, len(self.scheme.labels) + 1)
        for role, own in zip(self.tags.tolist(), by_role, strict=True):
            found.index_add_(2, torch.tensor(role, device=found.device) % found.shape[2], own)
        return found[:, :, :-1]
