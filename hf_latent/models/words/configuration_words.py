"""What the configurations of all models have in common: an encoder, and how its tokens become words."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from hf_latent.layers.word_pooling import POOLINGS

# Of saved models; one more where older versions of this package could not read them, or would read them as something else.
# 4 mixed no layers, had no penalty on distance and no relations, 3 saw no kinds of tokens, 2 had other names of weights.
FORMAT_VERSION = 5


@strict
class WordsConfig(PreTrainedConfig):
    r"""
    Configuration of models that see the words of a text.

    text_config (`PreTrainedConfig` or `dict`): the configuration of the encoder, of any model that `AutoModel` knows.
    word_pooling (`str`, *optional*): the vector of a word is that of its `"first"` sub-word, its `"last"`, or their `"mean"`.
        By default the first; the last where the encoder does not look ahead, found by trying it when the model is made.
    num_mixed_layers (`int`, *optional*, defaults to 1): of how many of the encoder's last layers a token's vector is a learned
        mean (`hf_latent.layers.ScalarMix`). With 1, it is that of the last layer as it is; with `None`, all layers are mixed.
    dropout (`float`, defaults to 0.0): in what stands above the encoder.
    encoder_size (`int`, *optional*): the size of the encoder's vectors, where it is not the `hidden_size` of its configuration;
        set by the model that is made.
    format_version (`int`): of saved models; set by the package that saves them.
    """

    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    text_config: PreTrainedConfig | dict | None = None
    word_pooling: str | None = None
    num_mixed_layers: int | None = 1
    dropout: float | int = 0.0
    encoder_size: int | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self, **kwargs):
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"This model was saved by a newer hf_latent (format {self.format_version}; this one reads up to "
                f"{FORMAT_VERSION}). Upgrade: pip install --upgrade hf_latent."
            )
        self.format_version = FORMAT_VERSION
        super().__post_init__(**kwargs)
        if self.output_attentions and self._attn_implementation is None:  # type: ignore[has-type]
            self._attn_implementation = "eager"  # the others have no attentions to return
        if self.num_mixed_layers is not None and self.num_mixed_layers < 1:
            raise ValueError(f"`num_mixed_layers` must be at least 1, or None for all, got {self.num_mixed_layers}.")
        if self.word_pooling not in (None, *POOLINGS):
            raise ValueError(f"`word_pooling` must be one of {', '.join(POOLINGS)}, got {self.word_pooling!r}.")

    @property
    def hidden_size(self) -> int:
        """The size of a word vector of the encoder."""
        return self.encoder_size or self.text_config.hidden_size  # type: ignore[union-attr, return-value]

    # What callers read and write here belongs to the encoder.
    @property
    def vocab_size(self) -> int:
        """The number of tokens that the encoder knows."""
        return self.get_text_config().vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.get_text_config().vocab_size = value

    @property
    def max_position_embeddings(self) -> int:
        """The number of tokens of the longest text that the encoder can read."""
        return self.get_text_config().max_position_embeddings
