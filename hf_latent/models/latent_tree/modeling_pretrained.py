"""What all latent-tree models share beyond what all models do."""

from typing import Any

from torch import nn

from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.words.modeling_pretrained import WordsPreTrainedModel


class LatentTreePreTrainedModel(WordsPreTrainedModel):
    """What parses, and names of weights that have changed."""

    config: LatentTreeConfig
    old_names = {"heads.": "head_averaging."}
    base_model_prefix = "latent_tree"

    @property
    def parser(self) -> nn.Module:
        """What finds trees: the model that all others are made on, unless they have more to say of them."""
        return self.base_model

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """As in transformers; new tokens are taken for words of their own.

        (Where some are special tokens, which are no words, call `model.base_model.set_word_boundaries(tokenizer)` after it.)
        """
        if isinstance(self.config.parser_input, list) or isinstance(self.config.decoder_input, list):
            raise ValueError(
                "The model sees kinds of tokens, and new tokens have none. Make it anew with `parser_input` or `decoder_input` "
                "for the larger vocabulary."
            )
        return super().resize_token_embeddings(*args, **kwargs)


__all__ = ["LatentTreePreTrainedModel"]
