"""Classification of tokens through a latent tree."""

from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel

from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.modeling_classification import LatentTreeClassifier
from hf_latent.models.losses import mean_token_loss, reaching, token_losses
from hf_latent.models.registry import Task, register_model


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
        of_words = self.classifier(self.decoder(words))
        if not words.shape[1]:
            return reaching(of_words.new_zeros(*word_ids.shape, self.config.num_labels), of_words)
        places = word_ids.clamp(min=0)[:, :, None].expand(-1, -1, of_words.shape[2])
        return of_words.gather(1, places).masked_fill(word_ids[:, :, None] < 0, 0.0)


__all__ = ["LatentTreeForTokenClassification"]
