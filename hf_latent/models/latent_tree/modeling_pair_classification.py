"""Classification of pairs of texts with a latent tree on each."""

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from hf_latent.inference.checks import is_eager
from hf_latent.layers import DecomposableAttention
from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.modeling_classification import LatentTreeClassifier
from hf_latent.models.registry import Task, register_model
from hf_latent.models.words.word_boundaries import IN_WHITE_SPACE


@register_model(
    AutoModelForSequenceClassification,
    Task("text-classification", "Natural Language Inference", "classifies pairs of sentences", num_texts=2),
    is_default=False,
)
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


__all__ = ["LatentTreeForPairClassification"]
