"""Sequences of tags by the scores of tags and of pairs of neighbours: a linear-chain conditional random field."""

from typing import NamedTuple

import torch
from torch import Tensor

from hf_latent.inference.checks import WrongAt, at_least_float32, check_count, check_ends, describe, is_eager
from hf_latent.inference.random import draw_seeds
from hf_latent.structures.linear_chain.tag_operators import check_shapes, max_marginals, operators


class BestTags(NamedTuple):
    """What `ChainScores.top_k` returns.

    Attributes:
        tags: `(batch, k, n)`, best first; -1 beyond the sentence, and where there are fewer than k.
        scores: `(batch, k)`, in float32 or better; -inf where there are fewer than k.
    """

    tags: Tensor
    scores: Tensor


class ChainScores:
    """The distribution p(y) ∝ exp(Σ emissions[i, y_i] + Σ transitions[y_i, y_i+1] + start[y_0] + end[y_n-1]) over tags y.

    Every sequence over the words of a sentence, as `LinearChain` has them, without its scores `(batch, n - 1, tags, tags)`:
    time is O(n · tags²) a sentence, room O(n · tags). A score of -inf, or one that lies 1e12 and more below the best of its
    row, forbids a tag or a pair, in every operation. What lies beyond a sentence is ignored, and has a gradient of 0. A
    sentence without words has one (empty) sequence. Lafferty, McCallum and Pereira (2001).

    Args:
        emissions: `(batch, n, tags)`, in any floating dtype; sums are float64 within.
        transitions: `(tags, tags)`, a row for the tag of the first word and a column for that of the second; or, for each pair
            of neighbours its own, `(batch, n - 1, tags, tags)`.
        lengths: `(batch,)`, the numbers of words; by default n.
        start: `(tags,)` or `(batch, tags)`, added to the scores of the first word.
        end: the same for the last.

    Raises:
        TypeError, ValueError: what has another type or shape, or scores of start or end that are NaN or +inf; when an
            operation is called, other scores that are, or that leave a sentence without a sequence.
    """

    def __init__(
        self,
        emissions: Tensor,
        transitions: Tensor,
        lengths: Tensor | None = None,
        start: Tensor | None = None,
        end: Tensor | None = None,
    ) -> None:
        self.lengths = check_shapes(emissions, transitions, lengths)
        words = torch.arange(emissions.shape[1], device=emissions.device)
        last = emissions.shape[1] - 1 if self.lengths is None else self.lengths[:, None] - 1
        for name, scores, place in (("start", start, words == 0), ("end", end, words == last)):
            if scores is not None:
                scores = check_ends(scores, emissions.shape[2], emissions, name)
                scores = scores[..., None, :] if scores.dim() == 2 else scores
                emissions = torch.where(place[..., None], emissions + scores, emissions)
        self.emissions, self.transitions = emissions, transitions

    @property
    def _own(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.emissions, self.transitions, self.lengths

    def argmax(self) -> Tensor:
        """The tags of a best sequence, `(batch, n)`, -1 beyond the sentence (Viterbi 1967); no gradient."""
        return operators.argmax(self.emissions.detach(), self.transitions.detach(), self.lengths)

    def log_partition(self) -> Tensor:
        """log Σ exp of the scores of all sequences, `(batch,)`, in float32 or better; differentiable twice."""
        return operators.log_partition(*self._own).to(at_least_float32(self.emissions.dtype))

    def marginals(self) -> Tensor:
        """The probability of each tag of each word, `(batch, n, tags)`; differentiable once."""
        return operators.expectations(*self._own, self.emissions.new_ones(self.emissions.shape[0]))[0]

    def pair_marginals(self) -> Tensor:
        """The probability of each pair of neighbours, `(batch, n - 1, tags, tags)`; differentiable once."""
        weights = self.emissions.new_ones(len(self.emissions))
        return operators.expectations(self.emissions, self._each(), self.lengths, weights)[1]

    def entropy(self) -> Tensor:
        """-Σ_y p(y) log p(y), `(batch,)`, in nats, in float32 or better; differentiable once."""
        value = operators.entropy(self.emissions, self.transitions, self._each(), self.lengths)
        return value.to(at_least_float32(self.emissions.dtype))

    def max_marginals(self) -> Tensor:
        """The score of the best sequence that has each tag at each word, `(batch, n, tags)`, in float32 or better; no gradient.

        The best tag of each word is that of a best sequence, unless two of these are alike. -inf where no sequence has the tag;
        0 beyond the sentence.
        """
        found = max_marginals(self.emissions.detach(), self.transitions.detach(), self.lengths)
        return found.to(at_least_float32(self.emissions.dtype))

    def sample(self, num_samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Drawn tags, `(num_samples, batch, n)`, -1 beyond the sentence; no gradient. Repeats with a seeded `generator`."""
        check_count("num_samples", num_samples)
        seeds = draw_seeds((num_samples, self.emissions.shape[0]), generator, self.emissions.device)
        return operators.sample(self.emissions.detach(), self.transitions.detach(), self.lengths, seeds)

    def top_k(self, k: int) -> BestTags:
        """The k best sequences and their scores, in time O(n · tags² · k) and a little more; no gradient."""
        check_count("k", k)
        tags, scores = operators.top_k(self.emissions.detach(), self.transitions.detach(), self.lengths, k)
        return BestTags(tags, scores.to(at_least_float32(self.emissions.dtype)))

    def score(self, tags: Tensor) -> Tensor:
        """The score of a sequence, `(batch,)`, from `tags (batch, n)`, which may be anything beyond the sentence.

        -inf where it has something forbidden. Differentiable.

        Raises:
            ValueError: tags of another shape, or out of range; the first is named.
        """
        return self._score(tags).to(at_least_float32(self.emissions.dtype))

    def log_prob(self, tags: Tensor) -> Tensor:
        """log p of a sequence, `(batch,)`, at most 0: `score` less `log_partition`, subtracted in float64. Differentiable."""
        value = self._score(tags) - operators.log_partition(*self._own)
        value = torch.where(value > 0, value - value.detach(), value)  # rounding only
        return value.to(at_least_float32(self.emissions.dtype))

    def pairs(self) -> Tensor:
        """The scores `(batch, n - 1, tags, tags)` by which `LinearChain` has the same distribution, from two words on."""
        n = self.emissions.shape[1]
        each = self._each() + self.emissions[:, 1:, None, :]
        return torch.cat([each[:, :1] + self.emissions[:, : min(n - 1, 1), :, None], each[:, 1:]], 1)

    def _each(self) -> Tensor:
        """The scores of the pairs of each sentence, `(batch, n - 1, tags, tags)`."""
        batch, n, tags = self.emissions.shape
        return self.transitions.expand(batch, max(n - 1, 0), tags, tags)

    def _score(self, tags: Tensor) -> Tensor:
        """In float64."""
        inside = self._inside()
        if not isinstance(tags, Tensor) or tags.shape != inside.shape or tags.is_floating_point():
            raise ValueError(f"`tags` must be integers of shape (batch, n), here {tuple(inside.shape)}, got {describe(tags)}.")
        count = self.emissions.shape[2]
        if is_eager():
            wrong = inside & ((tags < 0) | (tags >= count))
            if wrong.any():
                place = tuple(wrong.nonzero()[0].tolist())
                raise WrongAt(
                    f"`{{name}}` must lie between 0 and {count - 1}, but {{name}}{{place}} (sentence, word) is "
                    f"{int(tags[place])}. What is no word must be left out by `lengths` or a mask.",
                    "tags",
                    place,
                )
        tags = tags.long().where(inside, 0)
        nodes = self.emissions.gather(2, tags[:, :, None])[:, :, 0].double().where(inside, 0.0)
        if self.transitions.dim() == 2:
            pairs = self.transitions[tags[:, :-1], tags[:, 1:]]
        else:
            pairs = self.transitions.flatten(2).gather(2, (tags[:, :-1] * count + tags[:, 1:])[:, :, None])[:, :, 0]
        return nodes.sum(1) + pairs.double().where(inside[:, 1:], 0.0).sum(1)

    def _inside(self) -> Tensor:
        batch, n, _ = self.emissions.shape
        words = torch.arange(n, device=self.emissions.device)
        return (words < (n if self.lengths is None else self.lengths[:, None])).expand(batch, n)
