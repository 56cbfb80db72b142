"""How sure a distribution over tags is of a span."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_latent.layers.span_scheme import Span, SpanScheme
from hf_latent.structures import ChainScores


def span_probabilities(scheme: SpanScheme, chain: ChainScores, spans: Sequence[Sequence[Span]]) -> list[list[float]]:
    """The probability that a sentence has a span, with these bounds and this type: of all its sequences of tags together.

    Args:
        scheme: what the tags mean.
        chain: of some sentences, such as `scheme.decoder().chain(logits)[0]`.
        spans: of each sentence.

    Time O(words of the span · tags²) for each, after the marginals of pairs.

    Raises:
        ValueError: spans of another number of sentences, or one that does not lie in its sentence.
    """
    batch, n, _ = chain.emissions.shape
    if len(spans) != batch:
        raise ValueError(f"`spans` must be of the {batch} sentences of `chain`, got those of {len(spans)}.")
    lengths = [n] * batch if chain.lengths is None else chain.lengths.tolist()
    with torch.no_grad():
        tags, pairs = chain.marginals().double(), chain.pair_marginals().double()
    goes_on = scheme.goes_on.to(tags.device)
    found = []
    for row, own in enumerate(spans):
        for span in own:
            if not 0 <= span.start < span.end <= lengths[row]:
                raise ValueError(f"`spans` must lie in their sentences, but sentence {row} of {lengths[row]} words has {span}.")
        found.append([_probability(scheme, span, tags[row], pairs[row], goes_on, lengths[row]) for span in own])
    return found


def _probability(scheme: SpanScheme, span: Span, tags: Tensor, pairs: Tensor, goes_on: Tensor, length: int) -> float:
    """From marginals `(n, tags)` and `(n - 1, tags, tags)`: tags form a Markov chain, so that a span's own words suffice."""
    of_type = torch.tensor([role != "outside" and kind == span.type for role, kind in scheme.parts], device=tags.device)
    first = tags[0] if span.start == 0 else (pairs[span.start - 1] * ~goes_on).sum(0)
    reached = first * of_type  # by the last tag so far
    for word in range(span.start, span.end - 1):
        reached = _given(reached, tags[word]) @ (pairs[word] * goes_on)
    if span.end < length:
        reached = _given(reached, tags[span.end - 1]) * (pairs[span.end - 1] * ~goes_on).sum(1)
    return min(float(reached.sum()), 1.0)


def _given(reached: Tensor, tags: Tensor) -> Tensor:
    """Divided by the probability of the tag; 0 for a tag that there never is."""
    return torch.where(tags > 0, reached / tags.where(tags > 0, 1.0), 0.0)
