"""The words of a text, by any encoder."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput, logging

from hf_latent.inference.checks import is_eager
from hf_latent.layers import pool_words
from hf_latent.models.words import encoders
from hf_latent.models.words.configuration_words import WordsConfig
from hf_latent.models.words.layer_mix import new_layer_mix, vectors_of_tokens
from hf_latent.models.words.look_ahead import looks_ahead
from hf_latent.models.words.modeling_pretrained import WordsPreTrainedModel
from hf_latent.models.words.word_boundaries import UNSET, token_kinds, word_ids_from_tokens

logger = logging.get_logger(__name__)


@dataclass
class WordsModelOutput(ModelOutput):
    """
    last_hidden_state: `(batch, n, size)`, the words.
    num_words: `(batch,)`.
    hidden_states, attentions: the encoder's, per token, if asked for.
    """

    last_hidden_state: Tensor | None = None
    num_words: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class WordsModel(WordsPreTrainedModel):
    """An encoder, and words out of its sub-words. Others add what stands above it, by `_add_parts`."""

    token_kinds: Tensor

    def __init__(self, config: WordsConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.encoder = encoders.new_encoder(config.text_config) if encoder is None else encoder
        self.encoder_class = type(self.encoder)
        found = encoders.output_size(self.encoder)
        if found is not None and found != getattr(config.text_config, "hidden_size", None):
            config.encoder_size = found
        if config.word_pooling is None:
            config.word_pooling = "first" if looks_ahead(self.encoder) else "last"
        self.layer_mix = new_layer_mix(config)
        vocab_size = len(self.encoder.get_input_embeddings().weight)
        self.register_buffer("token_kinds", torch.full((vocab_size,), UNSET, dtype=torch.int32))
        self._add_parts()
        self.post_init()

    def _add_parts(self) -> None:
        """What stands above the words; here, nothing."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, WordsModel):
            nn.init.constant_(module.token_kinds, UNSET)

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def set_word_boundaries(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Learn from the tokenizer which tokens open a word; saved with the model.

        Tokens that are added to the tokenizer afterwards are taken for words of their own; call it again if they are special.
        What a word is: see `hf_latent.models.words.word_boundaries`.
        """
        size = len(self.get_input_embeddings().weight)  # type: ignore[arg-type]
        self.token_kinds = token_kinds(tokenizer, size).to(self.token_kinds.device)

    def forward(self, word_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Any) -> WordsModelOutput:
        """
        Args:
            word_ids: `(batch, tokens)`, the word of each token from 0, negative for tokens of none; see `find_words`.
            attention_mask: as the encoder takes it.
            **inputs: whatever else the encoder takes.
        """
        encoded, tokens = self._encode(attention_mask=attention_mask, **inputs)
        words, num_words = self._pool(tokens, word_ids)
        return WordsModelOutput(words, num_words, encoded.hidden_states, encoded.attentions)

    def _encode(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[BaseModelOutput, Tensor]:
        """What the encoder returns, and of that the vectors of the tokens, `(batch, tokens, size)`."""
        for name in ("output_hidden_states", "output_attentions"):
            if options.get(name) is None and getattr(self.config, name):
                options[name] = True
        wants_layers = options.get("output_hidden_states")
        if self.layer_mix is not None:
            options["output_hidden_states"] = True
        encoded = encoders.encode(self.encoder, attention_mask, input_ids=input_ids, inputs_embeds=inputs_embeds, **options)
        if encoded.attentions == () and is_eager():
            logger.warning_once(
                f"The encoder computes attention by {self.encoder.config._attn_implementation!r}, which has no `attentions` to "
                'return. Load it with `attn_implementation="eager"`.'
            )
        tokens = vectors_of_tokens(self.layer_mix, encoded)
        layers = encoded.hidden_states if wants_layers or self.layer_mix is None else None
        return BaseModelOutput(encoded.last_hidden_state, hidden_states=layers, attentions=encoded.attentions), tokens

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """The vectors of the tokens before any context, `(batch, tokens, size)`: `inputs_embeds`, where these are given."""
        embeddings = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        # Quantized ones come with their scale.
        return embeddings[0] if isinstance(embeddings, tuple) else embeddings

    def _pool(self, tokens: Tensor, word_ids: Tensor, pooling: str | None = None) -> tuple[Tensor, Tensor]:
        """The vectors of the words and their number; in a replica of `nn.DataParallel`, of as many words as there are tokens.

        (It puts the outputs of all replicas together, which must then be of one size.)
        """
        pooling = self.config.word_pooling if pooling is None else pooling
        assert pooling is not None  # since the model was made
        words, num_words = pool_words(tokens, word_ids, pooling)
        if getattr(self, "_is_replica", False):
            words = nn.functional.pad(words, (0, 0, 0, tokens.shape[1] - words.shape[-2]))
        return words, num_words

    @property
    def longest_text(self) -> int | None:
        """The number of tokens that the encoder has positions for; None where there is no limit."""
        return encoders.longest_text(self.encoder)

    def find_words(self, input_ids: Tensor | None, attention_mask: Tensor | None = None) -> Tensor:
        """The word of each token, `(batch, tokens)`, read off the tokens; -1 for tokens of none, -2 for white space."""
        unset = is_eager() and bool((self.token_kinds[:1] == UNSET).all())
        if input_ids is None or unset:
            why = "only `inputs_embeds` were passed" if input_ids is None else "the model was made without a tokenizer"
            raise ValueError(
                f"Cannot tell where words begin: {why}. Pass `word_ids` (the fast tokenizer's `word_ids()`, -1 for special "
                "tokens), or, with `input_ids`, call `model.base_model.set_word_boundaries(tokenizer)` once."
            )
        return word_ids_from_tokens(input_ids, attention_mask, self.token_kinds)
