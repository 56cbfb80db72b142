"""A dial between precision and recall, for taggers of spans as they are."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hf_latent.layers import ConditionalRandomField, SpanScheme
from hf_latent.models.losses import IGNORED

CANDIDATES = tuple(step / 2 for step in range(-10, 11))


class SpanBiases(NamedTuple):
    """What `choose_span_biases` returns.

    Attributes:
        begin, inside: as `SpanScheme.decoder` takes them.
        precision, recall: of spans, with these.
    """

    begin: float
    inside: float
    precision: float
    recall: float


def choose_span_biases(
    scheme: SpanScheme,
    logits: Sequence[Tensor],
    labels: Sequence[Sequence[int]],
    beta: float = 1.0,
    candidates: Sequence[float] = CANDIDATES,
    learned: ConditionalRandomField | None = None,
) -> SpanBiases:
    """The biases of `scheme.decoder` that find the spans of a development set best.

    One bias is chosen after the other, and the first once more. Of biases that are equally good, the smallest are taken.

    Args:
        logits: of each sentence, `(n, labels)`.
        labels: of each sentence, its right labels, which are valid; -100 for pieces of words that are left out.
        beta: F_β is what is made best: recall counts β times as much as precision. 1 for F1, 0.5 or 2 to turn the dial.
        candidates: the biases that are tried for either.
        learned: the field of a model that has one (`model.crf`), whose `logits` are its emissions (`decode=False`).

    Time O(candidates · words · labels²).

    Raises:
        ValueError: other numbers of sentences or words; labels without a span; a `beta` that is not positive.
    """
    if not beta > 0:
        raise ValueError(f"`beta` must be a positive number, got {beta!r}.")
    if len(logits) != len(labels):
        raise ValueError(f"`labels` must be of the {len(logits)} sentences that have `logits`, got those of {len(labels)}.")
    emissions, gold = [], []
    for row, (own, right) in enumerate(zip(logits, labels, strict=True)):
        if len(own) != len(right):
            raise ValueError(f"`labels` of sentence {row} are {len(right)}, but its `logits` are {len(own)}.")
        kept = [word for word, label in enumerate(right) if label != IGNORED]
        emissions.append(own.detach()[kept])
        gold.append(set(scheme.spans([right[word] for word in kept])))
    if not any(gold):
        raise ValueError("`labels` have no span in them, so that there is nothing to find.")
    padded = pad_sequence(emissions, batch_first=True)
    lengths = torch.tensor([len(own) for own in emissions], device=padded.device)
    mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]

    @cache
    def measured(begin: float, inside: float) -> SpanBiases:
        tags = scheme.decoder(begin, inside, learned).to(padded.device).decode(padded, mask)
        found = [set(scheme.spans(own)) for own in tags]
        right = sum(len(ours & theirs) for ours, theirs in zip(found, gold, strict=True))
        return SpanBiases(begin, inside, right / max(sum(map(len, found)), 1), right / sum(map(len, gold)))

    def f_score(biases: SpanBiases) -> float:
        weighted = beta**2 * biases.precision + biases.recall
        return (1 + beta**2) * biases.precision * biases.recall / weighted if weighted else 0.0

    best = measured(0.0, 0.0)
    for turn in ("begin", "inside", "begin"):
        tried = [measured(*best._replace(**{turn: bias})[:2]) for bias in sorted(candidates, key=abs)]
        best = max([best, *tried], key=f_score)  # the first of equals
    return best
