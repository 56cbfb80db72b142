"""From words to their tokens and back."""

import torch
from torch import Tensor, nn

from hf_latent.models.losses import IGNORED, reaching


def labels_of_words(labels: Tensor, word_ids: Tensor, n: int) -> Tensor:
    """`(batch, n)`, the label of the first token of each word, from `labels (batch, tokens)`; -100 for none."""
    tokens = torch.arange(word_ids.shape[1], device=word_ids.device).expand_as(word_ids)
    first = torch.full((len(word_ids), n + 1), word_ids.shape[1], device=word_ids.device)
    first = first.scatter_reduce(1, word_ids.where(word_ids >= 0, n), tokens, "amin")[:, :n]
    return nn.functional.pad(labels.long(), (0, 1), value=IGNORED).gather(1, first)


def of_tokens(of_words: Tensor, word_ids: Tensor) -> Tensor:
    """`(batch, tokens, size)`, what each token's word has in `of_words (batch, n, size)`; 0 for tokens of no word."""
    if not of_words.shape[1]:
        return reaching(of_words.new_zeros(*word_ids.shape, of_words.shape[2]), of_words)
    places = word_ids.clamp(min=0)[:, :, None].expand(-1, -1, of_words.shape[2])
    return of_words.gather(1, places).masked_fill(word_ids[:, :, None] < 0, 0.0)
