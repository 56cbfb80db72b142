"""Where words begin, read off the tokens themselves, so that plain tokenizers, collators and pipelines need no change.

A table over the vocabulary, computed once from the tokenizer and saved with the model, says for each token whether it
belongs to a word at all, whether it opens one, and which class of character it begins and ends with: tokenizers of the
byte-level kind (GPT-2, RoBERTa) also split words where letters, digits and punctuation meet.
"""

import json

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

# One byte a token: two flags, and two bits each for the class of the first and the last character (0: does not matter).
NO_WORD, OPENS_WORD = 1, 2
FIRST_SHIFT, LAST_SHIFT = 2, 4
UNSET = 255  # the table has not been computed: no tokenizer was given


def token_kinds(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Tensor:
    """The table `(vocab_size,)` in uint8.

    Raises:
        ValueError: a tokenizer that is not backed by `tokenizers`, that marks words in none of the known ways (WordPiece's
            `##`, SentencePiece's `▁`, byte-level BPE's `Ġ`, whole words), or that has more tokens than the encoder.
    """
    advice = "Pass `word_ids` to each forward call instead (the tokenizer's `word_ids()`, -1 for special tokens)."
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"`tokenizer` must be a fast one to tell where words begin, got {type(tokenizer).__name__}. {advice}")
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = tokenizer.get_vocab()
    if vocabulary and max(vocabulary.values()) >= vocab_size:
        raise ValueError(
            f"`tokenizer` has a token with id {max(vocabulary.values())}, but the encoder knows {vocab_size} tokens: it does "
            "not fit. Load both from the same place, or call `resize_token_embeddings(len(tokenizer))` on the encoder."
        )
    model = description["model"]
    splitters = json.dumps(
        [description["pre_tokenizer"], description["decoder"], description["normalizer"]], ensure_ascii=False
    )
    unknown_opens = True
    if model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        kinds = {index: 0 if token.startswith(prefix) else OPENS_WORD for token, index in vocabulary.items()}
    elif model["type"] == "WordLevel":
        kinds = dict.fromkeys(vocabulary.values(), OPENS_WORD)
    elif '"ByteLevel"' in splitters:
        kinds = {index: _byte_level_kind(token) for token, index in vocabulary.items()}
    elif "▁" in splitters:
        kinds = {index: OPENS_WORD if token.startswith("▁") else 0 for token, index in vocabulary.items()}
        unknown_opens = False  # what cannot be written still has its ▁ before it
    else:
        raise ValueError(
            f"Cannot tell where words begin from the tokens of {type(tokenizer).__name__} ({model['type']}). {advice}"
        )
    table = torch.full((vocab_size,), NO_WORD, dtype=torch.uint8)
    for index, kind in kinds.items():
        table[index] = kind
    for index in tokenizer.all_special_ids:
        table[index] = NO_WORD
    # Two special tokens stand for words after all.
    if tokenizer.unk_token_id is not None:
        table[tokenizer.unk_token_id] = OPENS_WORD if unknown_opens else 0
    if getattr(tokenizer, "mask_token_id", None) is not None:
        table[tokenizer.mask_token_id] = OPENS_WORD
    return table


def word_ids_from_tokens(input_ids: Tensor, attention_mask: Tensor | None, table: Tensor) -> Tensor:
    """The word of each token, `(batch, tokens)`, -1 for tokens of none: what a fast tokenizer's `word_ids()` tells."""
    kinds = table[input_ids.long()].long()  # where no text has a token, tokenizers return floats
    inside = (kinds & NO_WORD) == 0
    if attention_mask is not None:
        inside = inside & (attention_mask != 0)
    first, last = (kinds >> FIRST_SHIFT) & 3, (kinds >> LAST_SHIFT) & 3
    opens = ((kinds & OPENS_WORD) != 0) | ~_previous(inside, False)
    before = _previous(last, 0)
    opens = opens | ((first != before) & (first != 0) & (before != 0))
    return ((opens & inside).long().cumsum(1) - 1).masked_fill(~inside, -1)


def _previous(values: Tensor, start: int) -> Tensor:
    """What stands one to the left; `start` at the left edge."""
    return torch.cat([torch.full_like(values[:, :1], start), values[:, :-1]], dim=1)


def _byte_level_kind(token: str) -> int:
    text = bytes(_BYTES[character] for character in token if character in _BYTES).decode("utf-8", errors="replace")
    if not text.strip():
        return OPENS_WORD
    opens = OPENS_WORD if text[0].isspace() else 0
    text = text.strip()
    return opens | _character_class(text[0]) << FIRST_SHIFT | _character_class(text[-1]) << LAST_SHIFT


def _character_class(character: str) -> int:
    # A piece of a character beyond ASCII (U+FFFD): most of these are letters.
    return 1 if character == "\ufffd" or character.isalpha() else 2 if character.isnumeric() else 3


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for the 256 bytes in byte-level vocabularies (Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()
