"""Classification of tokens through a latent tree."""

from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel

from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.modeling_classification import LatentTreeClassifier
from hf_latent.models.losses import mean_token_loss, token_losses
from hf_latent.models.registry import Task, register_model
from hf_latent.models.words.tokens import of_tokens


@register_model(AutoModelForTokenClassification, Task("token-classification", "Token Classification", "labels words"))
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
        return of_tokens(self.classifier(self.decoder(words)), word_ids)


__all__ = ["LatentTreeForTokenClassification"]
