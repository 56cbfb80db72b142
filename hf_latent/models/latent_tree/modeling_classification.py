"""What the classifiers share: a latent tree, and losses that run through it. Each has a file of its own."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from typing_extensions import Unpack

from hf_latent.inference.checks import is_eager
from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.modeling_latent_tree import LatentTreeModel, LatentTreeModelOutput
from hf_latent.models.latent_tree.modeling_pretrained import LatentTreePreTrainedModel
from hf_latent.models.losses import example_losses, mean_heads_loss, mean_loss, reaching
from hf_latent.models.watching import LossWatch
from hf_latent.models.words.given_words import check_heads, check_token_labels


@dataclass
class LatentTreeClassifierOutput(ModelOutput):
    """
    loss: the mean downstream loss, if `labels` were given; its gradient also trains the arc scorer. With `heads`, their loss is
        in it, times `heads_loss_weight`.
    logits: `(batch, num_labels)`; of tokens, `(batch, tokens, num_labels)`.
    heads, relations: as [`LatentTreeModelOutput`] has them, where gold ones were given without labels.
    The rest is that of [`LatentTreeModelOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    num_words: Tensor | None = None
    arcs: Tensor | None = None
    arc_scores: Tensor | None = None
    latent_loss: Tensor | None = None
    heads: Tensor | None = None
    relations: Tensor | None = None
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
        self._watch = LossWatch()

    def logits(self, words: Tensor, num_words: Tensor, word_ids: Tensor) -> Tensor:
        """What is classified, from words beside their heads, their number, and the word of each token."""
        raise NotImplementedError

    def words_of_sentences(self, word_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """The word of each token of what this model classifies, from those of whole rows, `(batch, tokens)`."""
        if word_ids.dim() != 2:
            raise ValueError(f"`word_ids` must have shape (batch, tokens), got {tuple(word_ids.shape)}.")
        return word_ids

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
        relations: Tensor | None = None,
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

        found_word_ids = self.latent_tree.find_words(input_ids, attention_mask) if word_ids is None else word_ids
        own_word_ids = self.words_of_sentences(found_word_ids, token_type_ids)
        if heads is not None and word_ids is None:
            check_heads(own_word_ids, heads)
        output: LatentTreeModelOutput = self.latent_tree(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            word_ids=own_word_ids,
            heads=heads,
            relations=relations,
            task_loss=None if labels is None else task_loss,
            predict_heads=heads is not None and labels is None,
            return_dict=True,
            **kwargs,
        )
        logits = self._logits_of(output, own_word_ids)
        loss = self._loss_of(output, logits, labels, num_items_in_batch)
        if labels is not None and self.labels_tokens and word_ids is None:
            check_token_labels(own_word_ids, labels, self.config.id2label)
        return LatentTreeClassifierOutput(
            loss=loss,
            logits=logits,
            num_words=output.num_words,
            arcs=output.arcs,
            arc_scores=output.arc_scores,
            latent_loss=output.latent_loss,
            heads=output.heads,
            relations=output.relations,
            heads_loss=output.heads_loss,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _logits_of(self, output: LatentTreeModelOutput, word_ids: Tensor) -> Tensor:
        assert output.last_hidden_state is not None
        assert output.num_words is not None
        words = output.last_hidden_state
        if output.arcs is None:  # then they come from the encoder, which may be of another precision
            words = words.to(self.classifier.weight.dtype)
        logits = self.logits(words, output.num_words, word_ids)
        if output.latent_loss is not None and output.latent_loss.requires_grad and logits.requires_grad and is_eager():
            self._watch.see(logits, output.latent_loss)
        return logits

    def _loss_of(
        self, output: LatentTreeModelOutput, logits: Tensor, labels: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> Tensor | None:
        """The losses of labels, of the choice of a tree, and of gold heads, of those that there are."""
        if labels is None:
            return None if output.loss is None else reaching(output.loss, logits)
        losses = self.example_losses(logits, labels, self.config)
        if output.latent_loss is not None:
            losses = losses + output.latent_loss
        loss = self.mean_loss(losses, labels, num_items_in_batch)
        if output.heads_loss is not None:
            heads_loss = mean_heads_loss(output.heads_loss, labels, num_items_in_batch)
            loss = loss + self.config.heads_loss_weight * heads_loss
        return loss


__all__ = ["LatentTreeClassifier", "LatentTreeClassifierOutput"]
