"""What all models share: new weights, loading and saving, and the start from a pretrained encoder."""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, initialization
from typing_extensions import Self

from hf_latent import layers
from hf_latent.models.words import encoders
from hf_latent.models.words.configuration_words import WordsConfig
from hf_latent.models.words.word_boundaries import OWN_WORD, UNSET

# What draws its new weights by itself.
WITH_OWN_RESET = (
    nn.Linear,
    layers.BiaffineArcScorer,
    layers.BiaffineRelationScorer,
    layers.ConditionalRandomField,
    layers.MLPArcScorer,
    layers.RelativeArcScorer,
    layers.Counters,
    layers.HeadAveraging,
    layers.KindEmbedding,
    layers.RelationAveraging,
    layers.ScalarMix,
    layers.SpanScorer,
)
# What is not an option of `from_encoder`, but of the encoder or of saved models.
NOT_OPTIONS = {"text_config", "encoder_size", "format_version", "transformers_version", "architectures", "dtype"}


class WordsPreTrainedModel(PreTrainedModel):
    """Weight initialization, loading, and the start from a pretrained encoder.

    Attributes:
        old_names: what the names of weights began with in models saved before, and what they begin with now.
    """

    config: WordsConfig
    old_names: ClassVar[Mapping[str, str]] = {}
    base_model_prefix = "words"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LatentTreeLayer"]
    # Outside the encoder, models loaded in half precision keep their own, and nothing is quantized. (The two lists may have no
    # entry in common.)
    _keep_in_fp32_modules_strict = [r"^(?!((latent_tree|words)\.)?encoder\.).*"]
    _keep_in_fp32_modules = [r"^(?!((latent_tree|words)\.)?encoder\.).+"]
    # The encoder itself checks again.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, WITH_OWN_RESET):
            module.reset_parameters()
        elif isinstance(module, layers.LatentLayer) and module.estimator_state is not None:
            initialization.copy_(module.estimator_state, module.estimator.initial_state())

    def is_custom_code(self) -> bool:  # type: ignore[override]
        """Custom code is not asked to fill what is not saved; our own can be, and what matters is the encoder's."""
        return self.base_model.encoder.is_custom_code()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; a model computes to the last bit what it computed when it was saved."""
        own = {
            f"^{prefix}{old}": prefix + new
            for old, new in cls.old_names.items()
            for prefix in ("", f"{cls.base_model_prefix}.")
        }
        kwargs["key_mapping"] = {**own, **(kwargs.get("key_mapping") or {})}
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # Old names are for reading: the model is saved with the new ones.
        used = model._weight_conversions
        model._weight_conversions = [one for one in used if not own.keys() & set(one._original_source_patterns)]
        _align(model)
        return loaded

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As in transformers.

        Raises:
            ValueError: an encoder of code that transformers does not know, with which the model could not be loaded.
        """
        encoder_class = self.base_model.encoder_class
        if not encoders.comes_back(encoder_class, self.config.text_config):
            raise ValueError(
                f"A model with a {encoder_class.__name__} in it cannot be saved: its code is not part of transformers, and the "
                "model would be loaded with another encoder or not at all. Put that code into a package of your own that "
                "calls `AutoConfig.register` and `AutoModel.register`, and import it wherever the model is saved or loaded."
            )
        super().save_pretrained(*args, **kwargs)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """As in transformers; new tokens are taken for words of their own.

        (Where some are special tokens, which are no words, call `model.base_model.set_word_boundaries(tokenizer)` after it.)
        """
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        base = self.base_model
        added = embeddings.weight.shape[0] - len(base.token_kinds)
        fill = UNSET if bool((base.token_kinds[:1] == UNSET).all()) else OWN_WORD
        base.token_kinds = nn.functional.pad(base.token_kinds, (0, added), value=fill)
        return embeddings

    def get_position_embeddings(self) -> nn.Embedding:
        """As in transformers, where the encoder has it."""
        return self.base_model.encoder.get_position_embeddings()

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """As in transformers, where the encoder has it."""
        self.base_model.encoder.resize_position_embeddings(new_num_position_embeddings)

    @classmethod
    def from_encoder(
        cls,
        encoder: str | os.PathLike | PreTrainedModel,
        tokenizer: str | os.PathLike | PreTrainedTokenizerBase | None = None,
        **options: Any,
    ) -> Self:
        """This model with a pretrained encoder in it; all else is new and wants training.

        Args:
            encoder: a name on the Hub, a folder, or a model (of which its base model is taken over, not copied).
            tokenizer: the encoder's, which tells where words begin; by default loaded from where the encoder is. Without
                one, each forward call needs `word_ids`.
            **options: fields of the model's configuration (`num_labels`, `estimator`, …).

        Raises:
            TypeError: an option that the configuration does not have.
            ValueError: a tokenizer that does not fit the encoder, or does not mark words.
        """
        config_class = cls.config_class
        known = {field.name for field in fields(config_class)} | {"num_labels", "output_attentions"}
        known -= NOT_OPTIONS
        for option in options:
            if option not in known:
                raise TypeError(
                    f"Unknown option {option!r}. {config_class.__name__} takes: {', '.join(sorted(known))}. (As for how the "
                    "encoder is loaded: load it with `AutoModel.from_pretrained`, and pass it.)"
                )
        if not isinstance(encoder, str | os.PathLike | PreTrainedModel):
            raise TypeError(
                f"`encoder` must be a name, a folder or a model of transformers, got a {type(encoder).__name__}. Put this "
                f"{cls.__name__} on first, and adapters on the whole."
            )
        if not isinstance(encoder, PreTrainedModel):
            tokenizer = encoder if tokenizer is None else tokenizer
            encoder = AutoModel.from_pretrained(encoder)
        encoder = encoders.as_loaded(encoder)
        if isinstance(tokenizer, str | os.PathLike):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        if not options.get("output_attentions"):  # for which it takes another
            options["attn_implementation"] = {"text_config": encoder.config._attn_implementation}
        options["experts_implementation"] = {"text_config": encoder.config._experts_implementation}
        model = cls(config_class(text_config=encoder.config, **options), encoder)
        if getattr(encoder, "hf_quantizer", None) is not None:
            model.hf_quantizer = encoder.hf_quantizer  # which saves what it has quantized
        _align(model)
        if tokenizer is not None:
            model.base_model.set_word_boundaries(tokenizer)
        return model


def _align(model: nn.Module) -> None:
    """Weights read from a file lie in memory where the file has them, and matrix products round differently there."""
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % 64:
            parameter.data = parameter.data.clone()
