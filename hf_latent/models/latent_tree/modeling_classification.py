"""Classification of sentences, of pairs of sentences, and of tokens, through latent trees."""

import threading
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from typing_extensions import Unpack

from hf_latent.inference.checks import is_eager
from hf_latent.layers import AttentionPooling, DecomposableAttention
from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.given_words import check_heads, check_token_labels
from hf_latent.models.latent_tree.modeling_latent_tree import (
    LatentTreeModel,
    LatentTreeModelOutput,
    LatentTreePreTrainedModel,
)
from hf_latent.models.latent_tree.word_boundaries import IN_WHITE_SPACE
from hf_latent.models.losses import (
    example_losses,
    mean_heads_loss,
    mean_loss,
    mean_token_loss,
    reaching,
    token_losses,
)


@dataclass
class LatentTreeClassifierOutput(ModelOutput):
    """
    loss: the mean downstream loss, if `labels` were given; its gradient also trains the arc scorer. With `heads`, their loss is
        in it, times `heads_loss_weight`.
    logits: `(batch, num_labels)`; of tokens, `(batch, tokens, num_labels)`.
    heads: as [`LatentTreeModelOutput`] has them, where gold ones were given without labels.
    The rest is that of [`LatentTreeModelOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    num_words: Tensor | None = None
    arcs: Tensor | None = None
    arc_scores: Tensor | None = None
    latent_loss: Tensor | None = None
    heads: Tensor | None = None
    heads_loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class LatentTreeClassifier(LatentTreePreTrainedModel):
    """What the classifiers share: a latent tree, and losses that run through it. What makes `logits` of words is their own."""

    classifier: nn.Linear
    # The loss of each example, `(batch,)`, from logits, labels and the configuration; the mean of those that count.
    example_losses = staticmethod(example_losses)
    mean_loss = staticmethod(mean_loss)
    labels_tokens = False

    def __init__(self, config: LatentTreeConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.latent_tree = LatentTreeModel(config, encoder)
        # By the last backward pass of each thread.
        self._reached: dict[int, set[str]] = {}

    def logits(self, words: Tensor, num_words: Tensor, word_ids: Tensor) -> Tensor:
        """What is classified, from words beside their heads, their number, and the word of each token."""
        raise NotImplementedError

    def words_of_sentences(self, word_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """The word of each token of what this model classifies, from those of whole rows, `(batch, tokens)`."""
        if word_ids.dim() != 2:
            raise ValueError(f"`word_ids` must have shape (batch, tokens), got {tuple(word_ids.shape)}.")
        return word_ids

    def _watch(self, logits: Tensor, latent_loss: Tensor) -> None:
        """Warns of losses that are computed from the logits alone, by which the latent tree learns nothing."""
        thread = threading.get_ident()
        if self._reached.get(thread) == {"logits"}:
            warnings.warn(
                "The last loss did not have that of the latent tree in it: the tree learned nothing. Use `output.loss`, "
                "or add `output.latent_loss.mean()` to a loss of your own.",
                stacklevel=3,
            )
        reached = self._reached[thread] = set[str]()
        logits.register_hook(lambda _: reached.add("logits"))
        latent_loss.register_hook(lambda _: reached.add("latent_loss"))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        word_ids: Tensor | None = None,
        heads: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> LatentTreeClassifierOutput | tuple[Tensor, ...]:
        """
        Args:
            labels: `(batch,)` class numbers; `(batch,)` or `(batch, num_labels)` values for regression
                (`problem_type="regression"`, or `num_labels=1`); `(batch, num_labels)` 0/1 floats for several labels. Of
                tokens, `(batch, tokens)` class numbers. -100 is ignored. With a loss of your own, pass them all the same, and
                add `output.latent_loss.mean()` to it, which trains the tree.
            num_items_in_batch: what the loss is divided by in place of the number of examples (or tokens); the Trainer's.
            The rest is that of [`LatentTreeModel`].
        """

        def task_loss(words: Tensor, num_words: Tensor) -> Tensor:
            assert labels is not None
            return self.example_losses(self.logits(words, num_words, own_word_ids), labels, self.config)

        were_given = word_ids is not None
        if word_ids is None:
            word_ids = self.latent_tree.find_words(input_ids, attention_mask)
        own_word_ids = self.words_of_sentences(word_ids, token_type_ids)
        if heads is not None and not were_given:
            check_heads(own_word_ids, heads)
        output: LatentTreeModelOutput = self.latent_tree(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            word_ids=own_word_ids,
            heads=heads,
            task_loss=None if labels is None else task_loss,
            predict_heads=heads is not None and labels is None,
            return_dict=True,
            **kwargs,
        )
        assert output.last_hidden_state is not None
        assert output.num_words is not None
        words = output.last_hidden_state
        if output.arcs is None:  # then they come from the encoder, which may be of another precision
            words = words.to(self.classifier.weight.dtype)
        logits = self.logits(words, output.num_words, own_word_ids)
        if output.latent_loss is not None and output.latent_loss.requires_grad and logits.requires_grad and is_eager():
            self._watch(logits, output.latent_loss)
        loss = None if output.loss is None else reaching(output.loss, logits)
        if labels is not None:
            losses = self.example_losses(logits, labels, self.config)
            if self.labels_tokens and not were_given:
                check_token_labels(own_word_ids, labels, self.config.id2label)
            if output.latent_loss is not None:
                losses = losses + output.latent_loss
            loss = self.mean_loss(losses, labels, num_items_in_batch)
            if output.heads_loss is not None:
                heads_loss = mean_heads_loss(output.heads_loss, labels, num_items_in_batch)
                loss = loss + self.config.heads_loss_weight * heads_loss
        return LatentTreeClassifierOutput(
            loss=loss,
            logits=logits,
            num_words=output.num_words,
            arcs=output.arcs,
            arc_scores=output.arc_scores,
            latent_loss=output.latent_loss,
            heads=output.heads,
            heads_loss=output.heads_loss,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class LatentTreeForSequenceClassification(LatentTreeClassifier):
    """Sentence classification, multi-label classification or regression through a latent tree (paper, section 7.2.1).

    Each word beside its head, an affine layer, ReLU, attention, and a linear output layer.
    """

    def __init__(self, config: LatentTreeConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.decoder = nn.Sequential(
            nn.Linear(self.latent_tree.output_size, config.decoder_size), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.pooling = AttentionPooling(config.decoder_size)
        self.classifier = nn.Linear(config.decoder_size, config.num_labels)
        self.post_init()

    def logits(self, words: Tensor, num_words: Tensor, word_ids: Tensor) -> Tensor:
        """`(batch, num_labels)` from `words (batch, n, size)`."""
        return self.classifier(self.pooling(self.decoder(words), num_words))


class LatentTreeForPairClassification(LatentTreeClassifier):
    """Classification of sentence pairs with a latent tree on each (paper, section 7.2.2): natural language inference.

    Each word beside its head, decomposable attention between the sentences (Parikh et al. 2016), and a feed-forward layer.
    Pairs come as `tokenizer(premise, hypothesis)` makes them. The two trees of a pair share one loss, and surrogate gradients
    pull both back through the whole decoder.
    """

    def __init__(self, config: LatentTreeConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.comparison = DecomposableAttention(self.latent_tree.output_size, config.decoder_size, config.dropout)
        self.decoder = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(2 * config.decoder_size, config.decoder_size), nn.ReLU()
        )
        self.classifier = nn.Linear(config.decoder_size, config.num_labels)
        self.post_init()

    def logits(self, words: Tensor, num_words: Tensor, word_ids: Tensor) -> Tensor:
        """`(batch, num_labels)` from `words (batch, 2, n, size)`."""
        return self.classifier(self.decoder(self.comparison(words, num_words)))

    def words_of_sentences(self, word_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """The word of each token in either sentence, `(batch, 2, tokens)`, -1 for tokens of none; may be given as such.

        The second sentence begins where `token_type_ids` say so; in tokenizers that have none, after the special tokens that
        stand between words.

        Raises:
            ValueError: a row that is not a pair, or another shape.
        """
        if word_ids.dim() == 2:
            return split_pairs(word_ids, token_type_ids)
        if word_ids.dim() != 3 or word_ids.shape[1] != 2:
            raise ValueError(
                "`word_ids` must have shape (batch, 2, tokens), or (batch, tokens) for whole rows, got "
                f"{tuple(word_ids.shape)}."
            )
        return word_ids


class LatentTreeForTokenClassification(LatentTreeClassifier):
    """Classification of tokens (tagging, named entities) through a latent tree: a word is known by its head as well.

    All tokens of a word get the word's logits; those of no word (special tokens, padding) get logits of 0, and their labels
    are to be -100, as in transformers' own examples. Labels of words that are given (`is_split_into_words=True`) come with the
    `word_ids` of these words ([`encode_words`]).
    """

    example_losses = staticmethod(token_losses)
    mean_loss = staticmethod(mean_token_loss)
    labels_tokens = True

    def __init__(self, config: LatentTreeConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.decoder = nn.Sequential(
            nn.Linear(self.latent_tree.output_size, config.decoder_size), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.classifier = nn.Linear(config.decoder_size, config.num_labels)
        self.post_init()

    def logits(self, words: Tensor, num_words: Tensor, word_ids: Tensor) -> Tensor:
        """`(batch, tokens, num_labels)` from `words (batch, n, size)` and `word_ids (batch, tokens)`."""
        of_words = self.classifier(self.decoder(words))
        if not words.shape[1]:
            return reaching(of_words.new_zeros(*word_ids.shape, self.config.num_labels), of_words)
        places = word_ids.clamp(min=0)[:, :, None].expand(-1, -1, of_words.shape[2])
        return of_words.gather(1, places).masked_fill(word_ids[:, :, None] < 0, 0.0)


def split_pairs(word_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
    """`(batch, 2, tokens)` from the words of whole rows, `(batch, tokens)`, each sentence counted from 0."""
    is_word = word_ids >= 0
    # Gaps between words: special tokens with words on both sides.
    gaps = (~is_word & (word_ids != IN_WHITE_SPACE)).long().cumsum(1)
    before = gaps.masked_fill(~is_word, -1).cummax(1).values if gaps.shape[1] else gaps
    starts = is_word & (gaps > nn.functional.pad(before[:, :-1], (1, 0), value=-1))
    second = starts.long().cumsum(1) > 1
    in_second = torch.zeros_like(is_word) if token_type_ids is None else token_type_ids == 1
    told = in_second.any(1, keepdim=True)
    second = torch.where(told, in_second, second)
    if is_eager():
        one_alone = ((second & is_word).sum(1) == 0) | ((~second & is_word).sum(1) == 0)
        wrong = ((starts.sum(1) > 2) | one_alone) & ~told[:, 0]
        if wrong.any():
            raise ValueError(
                f"Row {int(wrong.nonzero()[0])} of the batch is not a pair of sentences, each with a word in it. Encode pairs "
                "with `tokenizer(first, second)`, by a tokenizer that puts a special token between them or returns "
                "`token_type_ids`; or pass `word_ids (batch, 2, tokens)`."
            )
    first_words = word_ids.masked_fill(second, -1)
    # Of the second sentence's words, the first is 0, whether the row was counted through or not.
    largest = word_ids.amax(1, keepdim=True)
    offset = torch.where(second & is_word, word_ids, largest).amin(1, keepdim=True)
    second_words = (word_ids - offset).masked_fill(~second | ~is_word, -1)
    return torch.stack([first_words, second_words], dim=1)


__all__ = [
    "LatentTreeClassifierOutput",
    "LatentTreeForPairClassification",
    "LatentTreeForSequenceClassification",
    "LatentTreeForTokenClassification",
]
