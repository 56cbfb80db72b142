"""Configuration of the BiLSTM encoder."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class BiLstmConfig(PreTrainedConfig):
    r"""
    Configuration of a [`BiLstmModel`]: word vectors and bidirectional LSTM layers over them.

    vocab_size (`int`, defaults to 30000): number of words, with padding and the unknown word.
    embedding_size (`int`, defaults to 100): size of a word vector.
    hidden_size (`int`, defaults to 200): size of a contextual vector, half of it from each direction.
    num_hidden_layers (`int`, defaults to 1): number of bidirectional layers; with 0, words have no context, and
        `hidden_size` is `embedding_size`.
    dropout (`float`, defaults to 0.0): on the word vectors and between layers.
    freeze_embeddings (`bool`, defaults to `False`): whether the word vectors stay as they are in training.
    """

    model_type = "bilstm"

    vocab_size: int = 30000
    embedding_size: int = 100
    hidden_size: int = 200
    num_hidden_layers: int = 1
    dropout: float | int = 0.0
    freeze_embeddings: bool = False
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.num_hidden_layers == 0:
            self.hidden_size = self.embedding_size
        elif self.hidden_size % 2:
            raise ValueError(f"`hidden_size` must be even (half for each direction), got {self.hidden_size}.")


__all__ = ["BiLstmConfig"]
