"""The spans of a sentence by a distribution over its labels: those of the best sequences, and how likely each is."""

from typing import NamedTuple

import torch

from hf_latent.layers import SpanScheme, SpanSegments, span_probabilities
from hf_latent.layers.span_scheme import Span
from hf_latent.structures import ChainScores, SegmentScores
from hf_latent.structures.segmentation.conversions import lists_from_choices


class BestSpans(NamedTuple):
    """One of the best sequences of a sentence.

    Attributes:
        probability: of the sequence as a whole.
        spans: in it, in their order.
        probabilities: of each span, in all sequences together.
    """

    probability: float
    spans: list[Span]
    probabilities: list[float]


def best_of_chain(scheme: SpanScheme, chain: ChainScores, count: int) -> list[BestSpans]:
    """The best sequences of labels, at most so many, of the one sentence that `chain` is of."""
    tags, scores = chain.top_k(count)
    likely = _likely(scores, chain.log_partition())
    each = [scheme.spans(own) for own in tags[0, : len(likely)].tolist()]
    different = list({span for spans in each for span in spans})
    sure = dict(zip(different, span_probabilities(scheme, chain, [different])[0], strict=True))
    return [BestSpans(chance, spans, [sure[span] for span in spans]) for chance, spans in zip(likely, each, strict=True)]


def best_of_segments(segments: SpanSegments, field: SegmentScores, count: int) -> list[BestSpans]:
    """The best segmentations, at most so many, of the one sentence that `field` is of."""
    choices, scores = field.top_k(count)
    likely = _likely(scores, field.log_partition())
    marginals = field.marginals()[0].double()
    found = []
    for chance, own in zip(likely, lists_from_choices(choices[0, : len(likely)], marginals.shape[2]), strict=True):
        labelled = [(start, end, label) for start, end, label in own if label]
        spans = [Span(segments.types[label - 1], start, end) for start, end, label in labelled]
        sure = [min(float(marginals[start, end - start - 1, label]), 1.0) for start, end, label in labelled]
        found.append(BestSpans(chance, spans, sure))
    return found


def _likely(scores: torch.Tensor, total: torch.Tensor) -> list[float]:
    """The probabilities of sequences that there are, from their scores `(1, k)`; -inf where there are fewer."""
    return [min(float((score - total[0].double()).exp()), 1.0) for score in scores[0].double() if score > -torch.inf]
