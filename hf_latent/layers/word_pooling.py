"""From sub-words to words."""

import torch
from torch import Tensor

from hf_latent.inference.checks import describe, is_eager

POOLINGS = ("first", "last", "mean")


def pool_words(tokens: Tensor, word_ids: Tensor, pooling: str = "first") -> tuple[Tensor, Tensor]:
    """The vector of each word, `(batch, n, hidden_size)`, and the number of words of each row, `(batch,)`.

    If a row holds several sentences, these are `(batch, sentences, n, hidden_size)` and `(batch, sentences)`. n is the largest
    number of words; within `torch.compile` it is the number of tokens.

    Args:
        tokens: `(batch, tokens, hidden_size)`.
        word_ids: `(batch, tokens)`, the word (from 0, left to right) that each token belongs to, as a fast tokenizer's
            `word_ids()` tells; negative for special tokens and padding, which belong to none. `(batch, sentences, tokens)`
            where a row holds several sentences, each with its own count from 0.
        pooling: "first" takes the vector of a word's first token, "last" that of its last (which alone knows the whole word if
            the encoder does not look ahead), "mean" the mean over its tokens.

    Raises:
        ValueError: shapes that do not fit, an unknown pooling, or a word with an id beyond the number of tokens.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"`word_pooling` must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
    if word_ids.dim() == 3 and word_ids.shape[::2] == tokens.shape[:2]:
        words, lengths = pool_words(tokens.repeat_interleave(word_ids.shape[1], 0), word_ids.flatten(0, 1), pooling)
        return words.unflatten(0, word_ids.shape[:2]), lengths.view(word_ids.shape[:2])
    if word_ids.shape != tokens.shape[:2] or word_ids.is_floating_point():
        raise ValueError(
            f"`word_ids` must be integers of shape {tuple(tokens.shape[:2])}, one for each token, got {describe(word_ids)}."
        )
    batch, length, size = tokens.shape
    lengths = word_ids.amax(1).clamp(min=-1) + 1 if length else word_ids.new_zeros(batch)
    # A compiled graph may not depend on values, so it has room for as many words as there are tokens.
    n = length if not is_eager() else int(lengths.max()) if batch else 0
    if n > length:
        raise ValueError(
            f"`word_ids` must number the words of each row from 0, but has word {n - 1} in a row of {length} tokens. "
            "Number the words after truncation."
        )
    # Column n collects the tokens that belong to no word.
    column = word_ids.long().where(word_ids >= 0, n)
    if pooling in ("first", "last"):
        positions = torch.arange(length, device=tokens.device).expand(batch, length)
        none = torch.full((batch, n + 1), length, device=tokens.device)
        reduce = "amin" if pooling == "first" else "amax"
        place = none.scatter_reduce(1, column, positions, reduce, include_self=False)[:, :n]
        padded = torch.nn.functional.pad(tokens, (0, 0, 0, 1))  # a word without tokens is 0
        return padded.gather(1, place[:, :, None].expand(-1, -1, size)), lengths
    sums = tokens.new_zeros(batch, n + 1, size).scatter_add(1, column[:, :, None].expand(-1, -1, size), tokens)
    counts = tokens.new_zeros(batch, n + 1).scatter_add(1, column, tokens.new_ones(batch, length))
    return (sums / counts.clamp(min=1)[:, :, None])[:, :n], lengths
