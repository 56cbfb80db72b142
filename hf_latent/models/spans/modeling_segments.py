"""Spans of words as wholes: a semi-Markov conditional random field on any encoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel
from transformers.utils import ModelOutput

from hf_latent.inference.checks import WrongAt, is_eager
from hf_latent.layers import SpanScorer, SpanSegments
from hf_latent.models.registry import Task, register_model
from hf_latent.models.spans.configuration_segments import SegmentConfig
from hf_latent.models.spans.modeling_tagger import SequenceTagger
from hf_latent.structures import SegmentScores


@dataclass
class SegmentOutput(ModelOutput):
    """
    loss: the negative log-likelihood of the labels, for each label that was given.
    logits: `(batch, tokens, num_labels)`, in evaluation mode: the log-probability of each label at the token's word, by all
        segmentations together; where the label of the best one is not the likeliest, it is made so, as little as may be. None
        in training. 0 at tokens of no word.
    segments: `(batch, n, longest_span, 1 + types)`, the scores of segments of *words*, by first word, number of words (less 1)
        and label (0 for a word outside of all spans, then the types in the order of the alphabet); -inf where there is none.
    num_words: `(batch,)`.
    hidden_states, attentions: the encoder's, per token, if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    segments: Tensor | None = None
    num_words: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@register_model(
    AutoModelForTokenClassification,
    Task("token-classification", "Token Classification", "finds spans, each sentence as a whole", kind="sequence"),
)
class SegmentForTokenClassification(SequenceTagger):
    """Spans by a semi-Markov conditional random field (Sarawagi and Cohen 2004), for labels in BIO or BIOES.

    Each stretch of words, up to `longest_span` of them, has a score for each type of span, which knows both ends, all words
    between and their number; so have types that are neighbours, and the first and the last one. The loss is the likelihood of
    whole segmentations, of which no two spans overlap; what is decoded is the best one.

    Labels are those of [`CRFForTokenClassification`], also where some of them are not known.

    >>> names = {0: "O", 1: "B-PER", 2: "I-PER"}
    >>> model = SegmentForTokenClassification.from_encoder("google-bert/bert-base-cased", id2label=names, longest_span=6)
    """

    config: SegmentConfig
    output_class = SegmentOutput
    scores_name = "segments"

    def __init__(self, config: SegmentConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        assert self.scheme is not None
        self.spans = SpanSegments(self.scheme, config.longest_span)
        labels = self.spans.tags.shape[1]
        self.scorer = SpanScorer(config.hidden_size, config.longest_span, labels, config.span_size, config.dropout)
        self.transitions = nn.Parameter(torch.zeros(labels, labels))
        self.start_transitions = nn.Parameter(torch.zeros(labels))
        self.end_transitions = nn.Parameter(torch.zeros(labels))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SegmentForTokenClassification):
            for scores in (module.transitions, module.start_transitions, module.end_transitions):
                nn.init.zeros_(scores)

    def score(self, words: Tensor) -> Tensor:
        """Of segments, `(batch, n, longest_span, 1 + types)`; -inf for those that labels cannot say."""
        scores = self.scorer(self.dropout(words.to(self.transitions.dtype))).float()
        return scores.masked_fill(~self.spans.allowed.to(scores.device), -torch.inf)

    def distribution(self, scores: Tensor, num_words: Tensor) -> SegmentScores:
        """Of `segments` as the output has them; also with what was added to some by whoever decodes."""
        return SegmentScores(scores, self.transitions, num_words, self.start_transitions, self.end_transitions)

    def losses(self, distribution: SegmentScores, labels: Tensor) -> Tensor:
        whole = distribution
        agreeing = self.spans.agreeing(labels)
        gold = SegmentScores(whole.segments.masked_fill(~agreeing, -torch.inf), whole.transitions, whole.lengths)
        return (whole.log_partition() - self._total(gold, labels)).float()

    def _total(self, gold: SegmentScores, labels: Tensor) -> Tensor:
        if not is_eager():
            return gold.log_partition()
        try:
            return gold.log_partition()
        except WrongAt as error:
            row = error.place[0] if error.place else 0
            longest = max((span.end - span.start for span in self.spans.scheme.spans(labels[row].tolist())), default=0)
            raise WrongAt(
                f"`{{name}}` must be spans of at most {self.config.longest_span} words (`longest_span`), of labels that the "
                f"model has, but those of {{name}}{{place}} are of no segmentation: its longest span has {longest} words. Make "
                "the model with a larger `longest_span`, or leave the sentence out.",
                "labels",
                (row,),
            ) from None

    def decoded(self, distribution: SegmentScores) -> Tensor:
        tags = self.spans.tags_of(distribution.argmax())
        found = self.spans.tag_marginals(distribution.marginals().double()).log().float()
        own = tags[:, :, None] == torch.arange(found.shape[2], device=found.device)
        highest = found.masked_fill(own, -torch.inf).amax(2, keepdim=True)
        above = torch.nextafter(highest, highest.new_full((), torch.inf))
        return torch.where(own, torch.maximum(found, above), found).masked_fill(tags[:, :, None] < 0, 0.0)

    def undecoded(self, scores: Tensor) -> None:
        return None


__all__ = ["SegmentForTokenClassification", "SegmentOutput"]
