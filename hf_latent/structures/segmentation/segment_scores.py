"""Labelled segmentations by the scores of segments and of transitions between their labels: a semi-Markov random field."""

from typing import NamedTuple

import torch
from torch import Tensor

from hf_latent.inference.checks import (
    WrongAt,
    at_least_float32,
    check_count,
    check_ends,
    check_range,
    describe,
    full_lengths,
    is_eager,
)
from hf_latent.inference.random import draw_seeds
from hf_latent.structures.segmentation.segment_operators import check_shapes, operators


class BestSegments(NamedTuple):
    """What `SegmentScores.top_k` returns.

    Attributes:
        choices: `(batch, k, n)`, best first, as `SegmentScores.argmax` has them; -1 throughout where there are fewer than k.
        scores: `(batch, k)`, in float32 or better; -inf where there are fewer than k.
    """

    choices: Tensor
    scores: Tensor


class SegmentScores:
    """The distribution p(z) ∝ exp(s·z + Σ transitions[y, y'] + start[first y] + end[last y]) over labelled segmentations z.

    All of `Segmentation`, with scores of what labels neighbours have. Time is O(n · max_length · labels + n · labels²) a
    sentence; the log-partition works in room of O(max_length · labels + labels²), whatever the length, beside its input (and a
    copy of that if there are scores of start or end). A score of -inf, or one that lies 1e12 and more below the best of its
    row, forbids a segment or a transition, in every operation. What ends beyond a sentence is ignored, and has a gradient of 0.
    A sentence without words has one (empty) segmentation. Sarawagi and Cohen (2004).

    One segmentation is written as *choices* `(n,)`: at each word where a segment begins, `(words - 1) * labels + label`, the
    place of the segment in `segments[b, i].flatten()`, and -1 at all other words. See `conversions` for lists and 0/1 tensors.

    Args:
        segments: `(batch, n, max_length, labels)`, by first word, number of words (less 1) and label, in any floating dtype;
            sums are float64 within.
        transitions: `(labels, labels)`, a row for the label of the earlier segment and a column for that of the next; or, for
            each sentence its own, `(batch, labels, labels)`. By default, labels do not matter to each other.
        lengths: `(batch,)`, the numbers of words; by default n.
        start: `(labels,)` or `(batch, labels)`, added to the scores of the first segment.
        end: the same for the last.

    Raises:
        TypeError, ValueError: what has another type or shape, or scores of start or end that are NaN or +inf; when an
            operation is called, other scores that are, or that leave a sentence without a segmentation.
    """

    def __init__(
        self,
        segments: Tensor,
        transitions: Tensor | None = None,
        lengths: Tensor | None = None,
        start: Tensor | None = None,
        end: Tensor | None = None,
    ) -> None:
        links = torch.zeros(0, 0, device=getattr(segments, "device", None)) if transitions is None else transitions
        self.lengths = check_shapes(segments, links, lengths)
        n, longest, labels = segments.shape[1:]
        for name, scores in (("start", start), ("end", end)):
            if scores is not None:
                scores = check_ends(scores, labels, segments, name)
                scores = scores[:, None, None, :] if scores.dim() == 2 else scores
                words, sizes = (torch.arange(size, device=segments.device) for size in (n, longest))
                after = n if self.lengths is None else self.lengths[:, None, None]
                place = words[:, None] == 0 if name == "start" else words[:, None] + sizes + 1 == after
                segments = torch.where(place[..., None], segments + scores, segments)
        self.segments, self.transitions = segments, links

    @property
    def _own(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.segments, self.transitions, self.lengths

    @property
    def _detached(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.segments.detach(), self.transitions.detach(), self.lengths

    def argmax(self) -> Tensor:
        """The choices of a best segmentation, `(batch, n)`; no gradient."""
        return operators.argmax(*self._detached)

    def log_partition(self) -> Tensor:
        """log Σ exp of the scores of all segmentations, `(batch,)`, in float32 or better; differentiable twice."""
        return operators.log_partition(*self._own).to(at_least_float32(self.segments.dtype))

    def marginals(self) -> Tensor:
        """The probability of each segment, `(batch, n, max_length, labels)`; differentiable once."""
        return operators.expectations(*self._own, self.segments.new_ones(self.segments.shape[0]))[0]

    def transition_counts(self) -> Tensor:
        """How often each transition is expected, `(batch, labels, labels)`; differentiable once."""
        weights = self.segments.new_ones(len(self.segments))
        return operators.expectations(self.segments, self._each(), self.lengths, weights)[1].to(self.segments.dtype)

    def entropy(self) -> Tensor:
        """-Σ_z p(z) log p(z), `(batch,)`, in nats, in float32 or better; differentiable once."""
        value = operators.entropy(self.segments, self.transitions, self._each(), self.lengths)
        return value.to(at_least_float32(self.segments.dtype))

    def sample(self, num_samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Drawn choices, `(num_samples, batch, n)`; no gradient. Repeats with a seeded `generator`."""
        check_count("num_samples", num_samples)
        seeds = draw_seeds((num_samples, self.segments.shape[0]), generator, self.segments.device)
        return operators.sample(*self._detached, seeds)

    def top_k(self, k: int) -> BestSegments:
        """The k best segmentations and their scores, in k times the time of one, and a little more; no gradient."""
        check_count("k", k)
        choices, scores = operators.top_k(*self._detached, k)
        return BestSegments(choices, scores.to(at_least_float32(self.segments.dtype)))

    def score(self, choices: Tensor) -> Tensor:
        """The score of a segmentation, `(batch,)`, from `choices (batch, n)`, -1 beyond the sentence.

        -inf where it has something forbidden. Differentiable.

        Raises:
            ValueError: choices of another shape, or that do not make up a segmentation; the first is named.
        """
        return self._score(choices).to(at_least_float32(self.segments.dtype))

    def log_prob(self, choices: Tensor) -> Tensor:
        """log p of a segmentation, `(batch,)`, at most 0: `score` less `log_partition`, in float64. Differentiable."""
        value = self._score(choices) - operators.log_partition(*self._own)
        value = torch.where(value > 0, value - value.detach(), value)  # rounding only
        return value.to(at_least_float32(self.segments.dtype))

    def _each(self) -> Tensor:
        """The scores of transitions of each sentence, `(batch, labels, labels)`."""
        batch, labels = self.segments.shape[0], self.segments.shape[3]
        links = self.transitions if self.transitions.numel() else self.segments.new_zeros(labels, labels)
        return links.expand(batch, labels, labels)

    def _score(self, choices: Tensor) -> Tensor:
        """In float64."""
        batch, n, _, labels = self.segments.shape
        if not isinstance(choices, Tensor) or choices.shape != (batch, n) or choices.is_floating_point():
            raise ValueError(f"`choices` must be integers of shape (batch, n), here {(batch, n)}, got {describe(choices)}.")
        if is_eager():
            self._check_choices(choices)
        begins, which = choices >= 0, choices.long().clamp(min=0)
        own = self.segments.flatten(2).gather(2, which[:, :, None])[:, :, 0]
        total = own.double().where(begins, 0.0).sum(1)
        if not self.transitions.numel():
            return total
        words = torch.arange(n, device=choices.device).expand(batch, n)
        latest = words.where(begins, -1).cummax(1).values[:, :-1] if n else words[:, :-1]
        label = which % labels
        pair = label.gather(1, latest.clamp(min=0)) * labels + label[:, 1:]
        links = self.transitions.expand(batch, labels, labels).flatten(1).gather(1, pair)
        return total + links.double().where(begins[:, 1:], 0.0).sum(1)

    def _check_choices(self, choices: Tensor) -> None:
        """Raises unless a segment begins where one ends, and only there, from the first word to the last."""
        batch, n, longest, labels = self.segments.shape
        lengths = full_lengths(self.lengths, self.segments)
        check_range(lengths, n)
        begins, words = choices >= 0, torch.arange(n + 1, device=choices.device)
        ends = words[:-1] + choices // labels + 1
        inside = begins & (choices < longest * labels) & (ends <= lengths[:, None])
        expected = torch.zeros(batch, n + 2, dtype=torch.bool, device=choices.device)
        expected[:, 0] = True
        expected.scatter_(1, ends.where(inside, n + 1), True)  # what ends at n + 1 does not count
        expected = expected[:, :-1]
        found = torch.cat([begins, begins.new_zeros(batch, 1)], 1) | (words == lengths[:, None])  # where the sentence ends
        wrong = (found != expected) & (words <= lengths[:, None])
        wrong[:, :n] |= begins & ~inside
        if wrong.any():
            row, word = wrong.nonzero()[0].tolist()
            raise WrongAt(
                "`{name}` must be a segmentation: (words - 1) · labels + label where a segment begins, which is where the one "
                f"before ends, and -1 elsewhere; but {{name}}{{place}} (sentence, word) is {int(choices[row, word])}, in a "
                f"sentence of {int(lengths[row])} words, with segments of at most {longest} words and {labels} labels. Take "
                "what `argmax` or `sample` returns, or `conversions.choices_from_lists`.",
                "choices",
                (row, word),
            )
