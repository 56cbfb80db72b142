"""Classification of texts by a few of their words."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from typing_extensions import Unpack

from hf_latent.estimators import Latent, TaskLoss
from hf_latent.estimators.estimator import no_loss
from hf_latent.inference.checks import describe, is_eager
from hf_latent.layers import AttentionPooling, LatentLayer
from hf_latent.models.losses import example_losses, mean_loss, reaching
from hf_latent.models.registry import Task, register_model
from hf_latent.models.selection.configuration_selection import LatentSelectionConfig
from hf_latent.models.watching import LossWatch
from hf_latent.models.words.modeling_pretrained import WordsPreTrainedModel
from hf_latent.models.words.modeling_words import WordsModel, WordsModelOutput
from hf_latent.models.words.tokens import of_tokens
from hf_latent.structures import with_neighbours


@dataclass
class LatentSelectionOutput(ModelOutput):
    """
    loss: the mean downstream loss, if `labels` were given; its gradient also trains the scores of the words.
    logits: `(batch, num_labels)`.
    chosen: `(batch, n)`, how much of each word was seen: 1 where it was chosen, 0 where it was not, and in between where an
        estimator relaxes the choice.
    scores: `(batch, n)`, of each word to be chosen; None where the model itself did not choose.
    latent_loss: `(batch,)`, whose gradient trains the scores; its value is 0.
    num_words: `(batch,)`.
    hidden_states, attentions: the encoder's, per token, if asked for: where the model chooses, before the choice.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    chosen: Tensor | None = None
    scores: Tensor | None = None
    latent_loss: Tensor | None = None
    num_words: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@register_model(
    AutoModelForSequenceClassification,
    Task("text-classification", "Text Classification", "classifies texts by a few of their words", kind="selection"),
)
class LatentSelectionForSequenceClassification(WordsPreTrainedModel):
    """Classification, multi-label classification or regression by a few words of each text: its rationale.

    The encoder reads the text and scores the words, a subset of them is chosen (`Subset`), and the classifier sees the chosen
    ones alone: of the other words, the embeddings are 0, so that nothing but their number and places can be known of them.
    (Lei, Barzilay and Jaakkola 2016 chose so by the score function; here, any estimator does.) Special tokens are always seen.

    >>> model = LatentSelectionForSequenceClassification.from_encoder("google-bert/bert-base-cased", num_labels=2, at_least=0.2)
    """

    config: LatentSelectionConfig

    def __init__(self, config: LatentSelectionConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.words = WordsModel(config, encoder)
        self.dropout = nn.Dropout(config.dropout)
        self.scorer: nn.Linear | None = None
        self.choice: LatentLayer | None = None
        if config.estimator is not None:
            self.scorer = nn.Linear(config.hidden_size, 1)
            self.choice = LatentLayer(config.new_structure(), config.new_estimator(), config.argmax_at_evaluation)
        embeddings: Any = self.words.get_input_embeddings()
        size = config.hidden_size if config.decoder_input == "encoder" else embeddings.weight.shape[1]
        self.decoder = nn.Sequential(nn.Linear(size, config.decoder_size), nn.ReLU(), nn.Dropout(config.dropout))
        self.pooling = AttentionPooling(config.decoder_size)
        self.classifier = nn.Linear(config.decoder_size, config.num_labels)
        self._watch = LossWatch()
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
        chosen: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> LatentSelectionOutput | tuple[Tensor, ...]:
        """
        Args:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: as the encoder takes them.
            word_ids: `(batch, tokens)`, the word of each token from 0, negative for tokens of none; by default read off the
                tokens (needs `input_ids`, and a tokenizer given when the model was made).
            chosen: `(batch, n)`, words to be seen in place of the model's own choice, 1 for whole and 0 for nothing of them:
                all but those of a rationale, say.
            labels: as [`LatentTreeForSequenceClassification`] takes them. With a loss of your own, pass them all the same, and
                add `output.latent_loss.mean()` to it, which trains the choice.
            num_items_in_batch: what the loss is divided by in place of the number of examples; the Trainer's.

        Raises:
            ValueError: a text with fewer words than are to be chosen.
        """
        word_ids = self.words.find_words(input_ids, attention_mask) if word_ids is None else word_ids
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids, **kwargs}
        embeddings = self.words._embed(input_ids, inputs_embeds)

        def task_loss(seen: Tensor) -> Tensor:
            assert labels is not None
            return example_losses(self._classify(embeddings, seen, word_ids, given)[0], labels, self.config)

        read = scores = None
        if self.scorer is not None and self.choice is not None and chosen is None:
            read = self.words(word_ids, input_ids=input_ids, inputs_embeds=inputs_embeds, **given)
            scored = self.scorer(self.dropout(read.last_hidden_state.to(self.scorer.weight.dtype)))
            scores = scored[:, :, 0].float()
            latent = self._choose(self.choice, scores, read.num_words, None if labels is None else task_loss)
        else:
            latent = Latent(self._seen(chosen, embeddings, word_ids), no_loss(embeddings))
        logits, seen_words = self._classify(embeddings, latent.value, word_ids, given)
        if read is None and torch.is_grad_enabled():
            logits = reaching(logits, *self.parameters())  # training on many devices waits for all
        if latent.loss.requires_grad and logits.requires_grad and is_eager():
            self._watch.see(logits, latent.loss)
        loss = None
        if labels is not None:
            losses = example_losses(logits, labels, self.config) + latent.loss
            loss = mean_loss(losses, labels, num_items_in_batch)
        return LatentSelectionOutput(
            loss=loss,
            logits=logits,
            chosen=latent.value,
            scores=scores,
            latent_loss=latent.loss,
            num_words=seen_words.num_words,
            hidden_states=(read or seen_words).hidden_states,
            attentions=(read or seen_words).attentions,
        )

    def _choose(self, choice: LatentLayer, scores: Tensor, num_words: Tensor, task_loss: TaskLoss | None) -> Latent:
        """The value is `(batch, n)`, also where it is chosen by pairs of neighbours."""
        if not self.config.neighbour_score:
            found: Latent = choice(scores, num_words, task_loss)
            return found
        both = with_neighbours(scores, self.config.neighbour_score)
        found = choice(both, num_words, None if task_loss is None else lambda chosen: task_loss(chosen.sum(-1)))
        return found._replace(value=found.value.sum(-1))

    def _seen(self, chosen: Tensor | None, embeddings: Tensor, word_ids: Tensor) -> Tensor:
        """`(batch, n)`, how much is seen of each word where the model itself does not choose: all, or what was `chosen`."""
        words, num_words = self.words._pool(embeddings, word_ids)
        inside = (torch.arange(words.shape[1], device=words.device) < num_words[:, None]).float()
        if chosen is None:
            return inside
        if chosen.dim() != 2 or len(chosen) != len(words) or chosen.shape[1] < words.shape[1]:
            raise ValueError(
                f"`chosen` must have shape {tuple(words.shape[:2])}, how much is to be seen of each word, got "
                f"{describe(chosen)}."
            )
        return chosen[:, : words.shape[1]].to(inside) * inside

    def _classify(
        self, embeddings: Tensor, seen: Tensor, word_ids: Tensor, given: dict[str, Any]
    ) -> tuple[Tensor, WordsModelOutput]:
        """`(batch, num_labels)` from as much of each word as is `seen (batch, n)`; and the words as they are then."""
        of_each = of_tokens(seen[:, :, None], word_ids).masked_fill(word_ids[:, :, None] < 0, 1.0)
        tokens = embeddings * of_each.to(embeddings.dtype)
        if self.config.decoder_input == "encoder":
            read: WordsModelOutput = self.words(word_ids, inputs_embeds=tokens, **given)
        else:
            read = WordsModelOutput(*self.words._pool(tokens, word_ids, "mean"))
        assert read.last_hidden_state is not None
        hidden = self.decoder(read.last_hidden_state.to(self.classifier.weight.dtype))
        return self.classifier(self.pooling(hidden, read.num_words)), read


__all__ = ["LatentSelectionForSequenceClassification", "LatentSelectionOutput"]
