"""Classification of texts through a latent tree."""

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from hf_latent.layers import AttentionPooling
from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.modeling_classification import LatentTreeClassifier
from hf_latent.models.registry import Task, register_model


@register_model(AutoModelForSequenceClassification, Task("text-classification", "Text Classification", "classifies sentences"))
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


__all__ = ["LatentTreeForSequenceClassification"]
