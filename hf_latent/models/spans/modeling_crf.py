"""Labels of words as a whole sequence: a conditional random field on any encoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from typing_extensions import Unpack

from hf_latent.inference.checks import WrongAt, is_eager
from hf_latent.layers import ConditionalRandomField, SpanScheme
from hf_latent.layers.conditional_random_field import TagConstraints
from hf_latent.models.losses import IGNORED, check_classes, mean_token_loss, reaching
from hf_latent.models.registry import Task, register_model
from hf_latent.models.spans.configuration_crf import CRFConfig
from hf_latent.models.words.given_words import check_token_labels
from hf_latent.models.words.modeling_pretrained import WordsPreTrainedModel
from hf_latent.models.words.modeling_words import WordsModel
from hf_latent.models.words.tokens import labels_of_words, of_tokens
from hf_latent.structures import ChainScores


@dataclass
class CRFOutput(ModelOutput):
    """
    loss: the negative log-likelihood of the labels, for each label that was given.
    logits: `(batch, tokens, num_labels)`. In evaluation mode, how likely the best sequence is that has this label at the
        token's word, as a log-probability: the label with the highest is that of the best sequence. In training, the emissions.
        0 at tokens of no word.
    emissions: `(batch, n, num_labels)`, the scores of the labels of each *word* by itself.
    num_words: `(batch,)`.
    hidden_states, attentions: the encoder's, per token, if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    emissions: Tensor | None = None
    num_words: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@register_model(
    AutoModelForTokenClassification,
    Task("token-classification", "Token Classification", "labels words, each sentence as a whole", kind="sequence"),
)
class CRFForTokenClassification(WordsPreTrainedModel):
    """Classification of tokens by a linear-chain conditional random field (Lafferty, McCallum and Pereira 2001).

    A word has the scores of its labels from the encoder, and each pair of neighbouring words those of transitions; the loss is
    the likelihood of whole sequences, and what is decoded is the best one. Where labels are those of spans (`B-PER`), only
    sequences that are valid have any probability (`span_scheme`).

    Labels are as in transformers' own examples, at the first token of each word, with -100 elsewhere; or at all tokens of a
    word. Labels of words that are given (`is_split_into_words=True`), or of some words only, come with the `word_ids` of these
    words ([`encode_words`]): a word without a label may have any, and sequences with the known labels count together.

    >>> model = CRFForTokenClassification.from_encoder("google-bert/bert-base-cased", id2label={0: "O", 1: "B-PER", 2: "I-PER"})
    """

    config: CRFConfig

    def __init__(self, config: CRFConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.words = WordsModel(config, encoder)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.scheme = config.new_span_scheme()
        constraints = None if self.scheme is None else self.scheme.constraints
        self.crf = ConditionalRandomField(config.num_labels, batch_first=True, constraints=constraints)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        word_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        decode: bool = True,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> CRFOutput | tuple[Tensor, ...]:
        """
        Args:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: as the encoder takes them.
            word_ids: `(batch, tokens)`, the word of each token from 0, negative for tokens of none; by default read off the
                tokens (needs `input_ids`, and a tokenizer given when the model was made).
            labels: `(batch, tokens)`, class numbers; -100 where there is none.
            num_items_in_batch: what the loss is divided by in place of the number of labels; the Trainer's.
            decode: False for `logits` that are the emissions in evaluation mode, too, for whoever decodes by himself.

        Raises:
            ValueError: labels out of range, or, with a `span_scheme`, of no valid sequence: sentence and word are named.
        """
        own_word_ids = self.words.find_words(input_ids, attention_mask) if word_ids is None else word_ids
        output = self.words(
            own_word_ids,
            attention_mask,
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            **kwargs,
        )
        words = output.last_hidden_state.to(self.classifier.weight.dtype)
        emissions = self.classifier(self.dropout(words)).float()
        # Everything has a gradient, also of a batch that knows nothing of it: training on many devices waits for all.
        emissions = reaching(emissions, words, *self.crf.parameters()) if torch.is_grad_enabled() else emissions
        inside = torch.arange(emissions.shape[1], device=emissions.device) < output.num_words[:, None]
        chain, _ = self.crf.chain(emissions.double(), inside)
        loss = None
        if labels is not None:
            labels = labels.to(emissions.device)
            check_classes(labels, own_word_ids.shape, self.num_labels)
            if word_ids is None:
                check_token_labels(own_word_ids, labels, self.config.id2label)
            losses = self._losses(chain, labels_of_words(labels, own_word_ids, emissions.shape[1]))
            loss = mean_token_loss(losses, labels, num_items_in_batch)
        return CRFOutput(
            loss=loss,
            logits=of_tokens(decoding(chain) if decode and not self.training else emissions, own_word_ids),
            emissions=emissions,
            num_words=output.num_words,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _losses(self, chain: ChainScores, labels: Tensor) -> Tensor:
        """`(batch,)`, -log of the probability of all sequences that have the known `labels (batch, n)`."""
        others = (labels != IGNORED)[:, :, None] & (torch.arange(self.num_labels, device=labels.device) != labels[:, :, None])
        gold = ChainScores(chain.emissions.masked_fill(others, -torch.inf), chain.transitions, chain.lengths)
        if is_eager() and self.scheme is not None:
            assert chain.lengths is not None
            self._check_valid(self.scheme, labels, chain.lengths)
        return (chain.log_partition() - self._total(gold)).float()

    def _total(self, gold: ChainScores) -> Tensor:
        if not is_eager():
            return gold.log_partition()
        try:
            return gold.log_partition()
        except WrongAt as error:
            raise WrongAt(
                "`{name}` must be sequences that the model has (`span_scheme`), but those of {name}{place} are of none, "
                "whatever the unknown ones are. Mend the labels, or make the model with `span_scheme=None`.",
                "labels",
                error.place,
            ) from None

    @staticmethod
    def _check_valid(scheme: SpanScheme, labels: Tensor, lengths: Tensor) -> None:
        """Raises where known labels next to each other, or at an end, are of no valid sequence."""
        constraints = TagConstraints(*(own.to(labels.device) for own in scheme.constraints))
        found = constraints.first_forbidden(labels, lengths)
        if found is None:
            return
        row, word, before, is_before = found
        where = "at the end" if not is_before else "at the start" if before is None else f"after {scheme.labels[before]!r}"
        raise ValueError(
            f"`labels` must be sequences that are valid in {scheme.kind} (`span_scheme`), but word {word} of sentence {row} is "
            f"{scheme.labels[int(labels[row, word])]!r} {where}. Mend the labels, or make the model with `span_scheme=None`."
        )


def decoding(chain: ChainScores) -> Tensor:
    """`(batch, n, tags)`, the log-probability of the best sequence that has each tag; the best sequence's own is the highest.

    Also where others are as good, or nearly so: these stand below by as little as there is.
    """
    best = chain.argmax()
    found = (chain.max_marginals() - chain.log_partition()[:, None, None]).float()
    own = best[:, :, None] == torch.arange(found.shape[2], device=found.device)
    highest = found.gather(2, best.clamp(min=0)[:, :, None])
    below = torch.nextafter(highest, highest.new_full((), -torch.inf))
    return torch.where(own, found, torch.minimum(found, below)).masked_fill(best[:, :, None] < 0, 0.0)


__all__ = ["CRFForTokenClassification", "CRFOutput"]
