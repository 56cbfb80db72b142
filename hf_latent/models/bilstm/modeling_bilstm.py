"""A BiLSTM over word vectors, as an encoder that `AutoModel` knows."""

import os
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import can_return_tuple

from hf_latent.models.bilstm.configuration_bilstm import BiLstmConfig
from hf_latent.models.bilstm.word_vectors import read_words_for_text, word_tokenizer
from hf_latent.models.registry import register_model


class BiLstmLayer(GradientCheckpointingLayer):
    """One bidirectional LSTM layer over each sentence's own words: padding is not seen, on whichever side it stands."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size // 2, batch_first=True, bidirectional=True)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        if not hidden_states.numel():  # which an LSTM does not take
            return hidden_states.new_zeros(*hidden_states.shape[:2], 2 * self.lstm.hidden_size)
        # The words of each row first, in their order; the way back is the inverse permutation.
        order = (attention_mask == 0).long().argsort(dim=1, stable=True)
        lengths = attention_mask.ne(0).sum(1).clamp(min=1).cpu()  # an LSTM takes no empty rows; they are masked below
        compact = hidden_states.gather(1, order[:, :, None].expand_as(hidden_states))
        packed = nn.utils.rnn.pack_padded_sequence(compact, lengths, batch_first=True, enforce_sorted=False)
        output, _ = self.lstm(packed)
        output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=hidden_states.shape[1])
        output = output.gather(1, order.argsort(dim=1)[:, :, None].expand_as(output))
        return output * attention_mask.ne(0)[:, :, None].to(output)


class BiLstmPreTrainedModel(PreTrainedModel):
    """Weight initialization and loading."""

    config: BiLstmConfig
    base_model_prefix = "bilstm"
    supports_gradient_checkpointing = True
    _no_split_modules = ["BiLstmLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            # Of the scale of pretrained word vectors, which this stands in for.
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                module.weight[module.padding_idx] = 0
        elif isinstance(module, nn.LSTM):
            module.reset_parameters()


@register_model(AutoModel)
class BiLstmModel(BiLstmPreTrainedModel):
    """The encoder: `input_ids (batch, n)` -> `last_hidden_state (batch, n, hidden_size)`."""

    def __init__(self, config: BiLstmConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        sizes = [config.embedding_size] + [config.hidden_size] * config.num_hidden_layers
        self.layers = nn.ModuleList(BiLstmLayer(*pair) for pair in pairwise(sizes))
        self.dropout = nn.Dropout(config.dropout)
        self.embeddings.weight.requires_grad_(not config.freeze_embeddings)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> BaseModelOutput | tuple[Tensor, ...]:
        """
        Args:
            input_ids: `(batch, n)`; or `inputs_embeds (batch, n, embedding_size)` in their place.
            attention_mask: `(batch, n)`, 0 at padding, on either side; by default, the padding token is padding.
            output_hidden_states: whether to return the output of every layer as well.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either `input_ids` or `inputs_embeds` (one of them, not both).")
        if inputs_embeds is None:
            inputs_embeds = self.embeddings(input_ids)
        if attention_mask is None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
            if input_ids is not None and self.config.pad_token_id is not None:
                attention_mask = input_ids.ne(self.config.pad_token_id).long()
        hidden_states = self.dropout(inputs_embeds)
        all_hidden_states = [hidden_states]
        for layer in self.layers:
            hidden_states = self.dropout(layer(hidden_states, attention_mask))
            all_hidden_states.append(hidden_states)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseModelOutput(last_hidden_state=hidden_states, hidden_states=tuple(all_hidden_states) if wanted else None)

    @classmethod
    def from_word_vectors(
        cls,
        path: str | os.PathLike,
        vocabulary: Iterable[str] | None = None,
        lowercase: bool | None = None,
        split_punctuation: bool = False,
        pairs: bool = False,
        skip_bad_lines: bool = False,
        **config,
    ) -> tuple["BiLstmModel", PreTrainedTokenizerFast]:
        """A BiLSTM that starts from pretrained word vectors, and the tokenizer that fits it.

        A vector of the file for `[UNK]` is that of the unknown word, which else has the mean of all words; one for `[SEP]` is
        that of the token between the sentences of a pair. Padding is 0, whatever the file has for `[PAD]`.

        Args:
            path: a file in GloVe's or word2vec's text format, plain or gzipped (see [`read_word_vectors`]).
            vocabulary: the words to keep, and, unless `lowercase=False`, their forms in lower case; by default all of the
                file. Words that have no vector are left out (the tokenizer maps them to the unknown word).
            lowercase: whether text is lower-cased before look-up, so that words with capitals are never found; by default,
                where less than one in a hundred of the words kept has capitals (as in GloVe's 6B vectors).
            split_punctuation: whether to split words at punctuation and not at white space alone.
            pairs: whether the tokenizer is to put a token between the two sentences of a pair.
            skip_bad_lines: whether to pass over lines of the file that are not a word and its numbers, with one warning.
            **config: fields of [`BiLstmConfig`], such as `hidden_size`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a line of the file that is not a word and its numbers (named), or no word left.
        """
        for option in ("vocab_size", "embedding_size", "pad_token_id"):
            if option in config:
                raise TypeError(f"`{option}` follows from the word vectors and cannot be set.")
        words, vectors, lowercase = read_words_for_text(path, vocabulary, lowercase, pairs, skip_bad_lines)
        tokenizer = word_tokenizer(words, lowercase=lowercase, split_punctuation=split_punctuation, pairs=pairs)
        rows = torch.tensor(tokenizer.convert_tokens_to_ids(words))
        ordinary = ~torch.isin(rows, torch.tensor(tokenizer.all_special_ids))
        if not ordinary.any():
            raise ValueError(f"{path} has no vectors but those of {', '.join(words)}, so there is no word to make a model of.")
        model = cls(
            BiLstmConfig(
                vocab_size=len(tokenizer),
                embedding_size=vectors.shape[1],
                pad_token_id=tokenizer.pad_token_id,
                **config,
            )
        )
        with torch.no_grad():
            model.embeddings.weight[tokenizer.unk_token_id] = vectors[ordinary].mean(0)
            model.embeddings.weight[rows] = vectors
            model.embeddings.weight[tokenizer.pad_token_id] = 0
        return model, tokenizer


__all__ = ["BiLstmModel", "BiLstmPreTrainedModel"]
