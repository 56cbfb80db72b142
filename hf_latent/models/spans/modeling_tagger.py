"""What taggers have in common that label the words of a sentence as a whole."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from typing_extensions import Unpack

from hf_latent.inference.checks import is_eager
from hf_latent.layers import SpanScheme
from hf_latent.layers.conditional_random_field import TagConstraints
from hf_latent.models.losses import check_classes, mean_token_loss, reaching
from hf_latent.models.spans.configuration_tagger import TaggerConfig
from hf_latent.models.words.given_words import check_token_labels
from hf_latent.models.words.modeling_pretrained import WordsPreTrainedModel
from hf_latent.models.words.modeling_words import WordsModel
from hf_latent.models.words.tokens import labels_of_words, of_tokens


class SequenceTagger(WordsPreTrainedModel):
    """An encoder, its words, and a distribution over the label sequences of each sentence, which is a subclass's own."""

    config: TaggerConfig
    output_class: type[ModelOutput]
    # What is scored above the words, for the output.
    scores_name: str

    def __init__(self, config: TaggerConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.words = WordsModel(config, encoder)
        self.dropout = nn.Dropout(config.dropout)
        self.scheme = config.new_span_scheme()

    @abstractmethod
    def score(self, words: Tensor) -> Tensor:
        """Scores in float32 or better, of `words (batch, n, size)`."""

    @abstractmethod
    def distribution(self, scores: Tensor, num_words: Tensor) -> Any:
        """Over label sequences, from these scores."""

    @abstractmethod
    def losses(self, distribution: Any, labels: Tensor) -> Tensor:
        """`(batch,)`, -log of the probability of all sequences that have the known `labels (batch, n)`."""

    @abstractmethod
    def decoded(self, distribution: Any) -> Tensor:
        """`(batch, n, num_labels)`, in which the label with the highest value is that of the best sequence."""

    @abstractmethod
    def undecoded(self, scores: Tensor) -> Tensor | None:
        """The `logits (batch, n, num_labels)` of words where nothing is decoded, if there are any."""

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
    ) -> ModelOutput | tuple[Tensor, ...]:
        """
        Args:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: as the encoder takes them.
            word_ids: `(batch, tokens)`, the word of each token from 0, negative for tokens of none; by default read off the
                tokens (needs `input_ids`, and a tokenizer given when the model was made).
            labels: `(batch, tokens)`, class numbers; -100 where there is none.
            num_items_in_batch: what the loss is divided by in place of the number of labels; the Trainer's.
            decode: False to leave the best sequence to whoever decodes by himself, also in evaluation mode.

        Raises:
            ValueError: labels out of range, or of no sequence that the model has: sentence and word are named.
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
        words = output.last_hidden_state
        scores = self.score(words)
        if torch.is_grad_enabled():
            # Everything has a gradient, also of a batch that knows nothing of it: training on many devices waits for all.
            above = [own for name, own in self.named_parameters() if not name.startswith("words.")]
            scores = reaching(scores, words, *above)
        distribution = self.distribution(scores, output.num_words)
        loss = None
        if labels is not None:
            labels = labels.to(scores.device)
            check_classes(labels, own_word_ids.shape, self.num_labels)
            if word_ids is None:
                check_token_labels(own_word_ids, labels, self.config.id2label)
            of_words = labels_of_words(labels, own_word_ids, scores.shape[1])
            if is_eager() and self.scheme is not None:
                self._check_valid(self.scheme, of_words, output.num_words)
            loss = mean_token_loss(self.losses(distribution, of_words), labels, num_items_in_batch)
        logits = self.decoded(distribution) if decode and not self.training else self.undecoded(scores)
        return self.output_class(
            loss=loss,
            logits=None if logits is None else of_tokens(logits, own_word_ids),
            num_words=output.num_words,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            **{self.scores_name: scores},
        )

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
            f"{scheme.labels[int(labels[row, word])]!r} {where}. Mend the labels, or make a CRFForTokenClassification with "
            "`span_scheme=None`."
        )
