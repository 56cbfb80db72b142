"""Where words begin, read off the tokens themselves, so that plain tokenizers, collators and pipelines need no change.

A word is a run of tokens that nothing divides. What divides:

- *White space* (Unicode's: blanks, tabs, line breaks, no-break and ideographic spaces; no zero-width joiners), however many
  of it, wherever it stands. Tokens of nothing else belong to no word. (One blank alone belongs to the word after it where
  tokenizers take it for that word's mark: a bare `Ġ` or `▁` directly before a token that does not open a word.)
- *Special tokens*, which belong to no word. Two stand for words after all: the mask, and what unknown words are written as.
- *Tokens that were added* to the tokenizer, and are not special: each is a word of its own, whatever it touches and however
  it was declared (`lstrip`, `rstrip`, `single_word`). So are tokens that are added once the table has been computed.
- What the *way in which the tokenizer marks words* divides. WordPiece and its like divide at each token without their prefix
  (`##`), whole-word tokenizers at each token, those that mark the ends of words (`</w>`) after such an end, and byte-level ones
  (GPT-2, RoBERTa) where letters, numbers and other characters meet. (A character that is cut in pieces counts as what most
  characters are that begin so.)

A token is never divided, be there white space in the midst of it. (Nor is white space seen that is cut in pieces of which one
is in a token with other characters.) A piece that the vocabulary lacks divides nothing where `▁` marks the beginnings of words;
elsewhere it is a word.

One token may have several roles. Padding is told by the attention mask. Where unknown words are written as the beginning or the
end of a text is, the first or last token of a row is taken for that if the tokenizer puts it there by itself, and for a word
anywhere else; a warning says so when the table is made.

All of it is in a table over the vocabulary, computed once from the tokenizer and saved with the model.
"""

import codecs
import json
import re
import unicodedata
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_latent.inference.checks import is_eager

# Of a token: flags, two bits each for the class of its first and its last character (0: does not matter) ...
NO_WORD, OPENS_WORD = 1 << 0, 1 << 1
FIRST_SHIFT, LAST_SHIFT = 2, 4
BLANK, CLOSES_WORD = 1 << 6, 1 << 7  # nothing but white space; white space at its end
MARK = 1 << 8  # one blank: the beginning of the word after it, where that does not begin by itself
TEMPLATE_FIRST, TEMPLATE_LAST = 1 << 9, 1 << 10  # a word, but for the place where the tokenizer puts it by itself
PADDING = 1 << 11  # a word, but for where a row is padded
# ... and its bytes, if they are a part of one white-space character.
PIECE_SHIFT = 12
OWN_WORD = OPENS_WORD | CLOSES_WORD
UNSET = 255  # the table has not been computed: no tokenizer was given

IN_NO_WORD, IN_WHITE_SPACE = -1, -2

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_WIDE = [character.encode() for character in WHITE_SPACE if len(character.encode()) > 1]
_PIECES = {wide[start:end] for wide in _WIDE for start in range(3) for end in range(start + 1, 4)} - {*_WIDE, b""}
# What texts have in them, and every tokenizer should see.
_COMMON_WHITE_SPACE = "\t\n\r\xa0\u2028\u3000"
_ADVICE = "Pass `word_ids` to each forward call instead (the tokenizer's `word_ids()`, -1 for special tokens)."


def token_kinds(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Tensor:
    """The table `(vocab_size,)` in int32.

    Warns of what cannot be told from tokens alone: white space that the tokenizer writes as an unknown piece or not at all,
    and unknown words that it writes as it writes the beginning or the end of a text (at the beginning or the end of a row,
    the token is then taken for that).

    Raises:
        ValueError: a tokenizer that is not backed by `tokenizers`, that marks words in none of the known ways (WordPiece's
            `##`, SentencePiece's `▁`, byte-level BPE's `Ġ`, BPE's `</w>`, whole words), or that has more tokens than the
            encoder.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"`tokenizer` must be a fast one to tell where words begin, got {type(tokenizer).__name__}. {_ADVICE}")
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = tokenizer.get_vocab()
    if vocabulary and max(vocabulary.values()) >= vocab_size:
        raise ValueError(
            f"`tokenizer` has a token with id {max(vocabulary.values())}, but the encoder knows {vocab_size} tokens: it does "
            "not fit. Load both from the same place, or call `resize_token_embeddings(len(tokenizer))` on the encoder."
        )
    kind, unknown_kind = _kinds_of(description, type(tokenizer).__name__)
    kinds = [OWN_WORD] * vocab_size  # rows of the embedding matrix that the tokenizer does not use yet
    for token, index in vocabulary.items():
        kinds[index] = kind(token)
    for index, added in tokenizer.added_tokens_decoder.items():
        blank = not added.content.replace("▁", " ").strip(WHITE_SPACE)
        kinds[index] = NO_WORD if added.special else BLANK if blank else OWN_WORD
    for index in tokenizer.all_special_ids:
        kinds[index] = NO_WORD
    roles = {getattr(tokenizer, f"{role}_token_id", None) for role in ("bos", "eos", "sep", "cls", "pad")}
    words: dict[int | None, int] = {getattr(tokenizer, "mask_token_id", None): OWN_WORD}
    if tokenizer.unk_token_id not in roles:
        words[tokenizer.unk_token_id] = unknown_kind
    words[_unknown_id(description, vocabulary)] = unknown_kind
    before, after = _template(tokenizer)
    for index, own in words.items():
        if index is None:
            continue
        kinds[index] = own | (PADDING if index == tokenizer.pad_token_id else 0)
        if index in (*before, *after):
            kinds[index] |= _places(tokenizer, index, before, after)
    table = torch.tensor(kinds, dtype=torch.int32)
    _warn_of_lost_white_space(tokenizer, table)
    return table


def word_ids_from_tokens(input_ids: Tensor, attention_mask: Tensor | None, table: Tensor) -> Tensor:
    """The word of each token, `(batch, tokens)`, from 0; -1 for tokens of none, of which -2 for white space.

    Raises:
        ValueError: no `attention_mask`, where a token is padding as well as an unknown word.
    """
    kinds = table[input_ids.long()].long()  # where no text has a token, tokenizers return floats
    if attention_mask is None:
        if is_eager() and (kinds & PADDING).any():
            raise ValueError("Pass `attention_mask`: this tokenizer writes unknown words as it writes padding.")
        attended = torch.ones_like(kinds, dtype=torch.bool)
    else:
        attended = attention_mask != 0
    first = attended & (attended.long().cumsum(1) == 1)
    last = attended & (attended.long().flip(1).cumsum(1).flip(1) == 1)
    template = (first & _has(kinds, TEMPLATE_FIRST)) | (last & _has(kinds, TEMPLATE_LAST))
    inside = attended & ~template & ~_has(kinds, NO_WORD)
    opens = _has(kinds, OPENS_WORD)
    blank = _has(kinds, BLANK) | _white_space_in_pieces((kinds >> PIECE_SHIFT).masked_fill(~inside, 0))
    blank = blank | (_has(kinds, MARK) & ~_next(inside & ~opens & ~blank))
    in_word = inside & ~blank
    starts = opens | ~_previous(in_word) | _previous(_has(kinds, CLOSES_WORD)) | _classes_meet(kinds, opens | ~in_word)
    word_ids = (starts & in_word).long().cumsum(1) - 1
    return word_ids.masked_fill(~in_word, IN_NO_WORD).masked_fill(inside & blank, IN_WHITE_SPACE)


def _has(kinds: Tensor, flag: int) -> Tensor:
    return (kinds & flag) != 0


def _previous(values: Tensor, edge: int = 0) -> Tensor:
    """What stands one to the left; `edge` at the left edge."""
    return torch.cat([torch.full_like(values[:, :1], edge), values[:, :-1]], dim=1)


def _next(values: Tensor) -> Tensor:
    """What stands one to the right; 0 at the right edge."""
    return _previous(values.flip(1)).flip(1)


def _classes_meet(kinds: Tensor, known: Tensor) -> Tensor:
    """Where a token begins with another class of character than the one before it ends with.

    That is known of tokens that are the end of a character from the tokens before them, as far back as the `known`.
    """
    first, last = (kinds >> FIRST_SHIFT) & 3, (kinds >> LAST_SHIFT) & 3
    place = torch.arange(kinds.shape[1], device=kinds.device).expand_as(kinds)
    source = place.where(known | (last != 0), 0).cummax(1).values if kinds.shape[1] else place
    before = _previous(last.gather(1, source))
    return (first != before) & (first != 0) & (before != 0)


def _white_space_in_pieces(pieces: Tensor) -> Tensor:
    """Where tokens, each with the bytes of its `piece` (0 if it is none), make up a white-space character together."""
    wide = torch.tensor([int.from_bytes(character, "big") for character in _WIDE], device=pieces.device)
    one = _previous(pieces)
    two = _previous(one)
    ends_pair = torch.isin(_joined(one, pieces), wide)
    ends_triple = torch.isin(_joined(_joined(two, one), pieces), wide)
    ends = ends_pair | ends_triple
    return ends | _next(ends) | _next(_next(ends_triple))


def _joined(left: Tensor, right: Tensor) -> Tensor:
    """The bytes of two pieces as one; 0 unless there are two."""
    return ((left << torch.where(right > 0xFF, 16, 8)) | right).where((left != 0) & (right != 0), 0)


def _kinds_of(description: dict, name: str) -> tuple[Callable[[str], int], int]:
    """What tells the kind of a token of this tokenizer, and the kind of the one for what the vocabulary lacks."""
    model = description["model"]
    splitters = json.dumps(
        [description["pre_tokenizer"], description["decoder"], description["normalizer"]], ensure_ascii=False
    )
    prefix, suffix = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    byte_level = '"ByteLevel"' in splitters
    if model["type"] == "WordLevel":
        return lambda token: _opening(_kind(token.encode())), OPENS_WORD
    if suffix:

        def kind(token: str) -> int:
            data = token.removesuffix(suffix)
            own = _kind(_bytes_of(data) if byte_level else data.encode())
            return own | CLOSES_WORD if token.endswith(suffix) else own

        return kind, OWN_WORD
    if prefix:
        return lambda token: _kind(token.encode()) if token.startswith(prefix) else _opening(_kind(token.encode())), OPENS_WORD
    if byte_level:
        return lambda token: _kind(_bytes_of(token), with_classes=True), OWN_WORD
    if "▁" in splitters:
        byte = re.compile("<0x([0-9A-F]{2})>") if model.get("byte_fallback") else None

        def kind(token: str) -> int:
            fallback = byte and byte.fullmatch(token)
            return _kind(bytes.fromhex(fallback[1]) if fallback else token.replace("▁", " ").encode())

        return kind, 0  # what cannot be written still has its ▁ before it
    raise ValueError(f"Cannot tell where words begin from the tokens of {name} ({model['type']}). {_ADVICE}")


def _opening(kind: int) -> int:
    return kind | OPENS_WORD if not kind & BLANK else kind


def _kind(data: bytes, with_classes: bool = False) -> int:
    """The kind of a token of these bytes, by its white space and its characters."""
    piece = int.from_bytes(data, "big") << PIECE_SHIFT if data in _PIECES else 0
    rest = data.lstrip(bytes(range(0x80, 0xC0)))  # without the end of a character that begins in another token
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(rest)
    cut = decoder.getstate()[0]  # the beginning of a character that ends in another token
    visible = text.strip(WHITE_SPACE)
    whole = len(rest) == len(data) and not cut
    if text and whole and not visible:
        return MARK | OPENS_WORD if text == " " else BLANK
    opens = OPENS_WORD if len(rest) == len(data) and text[:1] and text[0] in WHITE_SPACE else 0
    closes = CLOSES_WORD if not cut and text[-1:] and text[-1] in WHITE_SPACE else 0
    kind = piece | opens | closes
    if not with_classes:
        return kind
    last = _class_of_cut(cut) if cut else _character_class(visible[-1]) if visible else 0
    first = 0 if len(rest) < len(data) else _character_class(visible[0]) if visible else last
    return kind | first << FIRST_SHIFT | last << LAST_SHIFT


def _character_class(character: str) -> int:
    return 1 if character.isalpha() else 2 if character.isnumeric() else 3


@cache
def _class_of_cut(lead: bytes) -> int:
    """The class of most of the characters whose UTF-8 begins with these bytes."""
    size = 2 if lead[0] < 0xE0 else 3 if lead[0] < 0xF0 else 4
    bits = lead[0] & (0x7F >> size)
    for byte in lead[1:]:
        bits = bits << 6 | byte & 0x3F
    shift = 6 * (size - len(lead))
    points = range(max(bits << shift, (0, 0, 0x80, 0x800, 0x10000)[size]), min((bits + 1) << shift, 0x110000))
    classes = [_character_class(chr(point)) for point in points if unicodedata.category(chr(point)) not in ("Cn", "Cs", "Co")]
    return max((1, 2, 3), key=classes.count)


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for the 256 bytes in byte-level vocabularies (Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _bytes_of(token: str) -> bytes:
    """What a token of a byte-level vocabulary stands for."""
    return bytes(_BYTES[character] for character in token if character in _BYTES)


def _unknown_id(description: dict, vocabulary: dict[str, int]) -> int | None:
    """The token that is written for what the vocabulary lacks; None where it lacks nothing."""
    model = description["model"]
    if '"ByteLevel"' in json.dumps(description["pre_tokenizer"]) and _BYTES.keys() <= vocabulary.keys():
        return None
    if model.get("byte_fallback") and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        return None
    if model["type"] == "Unigram":
        return model["unk_id"]
    return vocabulary.get(model.get("unk_token"))


def _template(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before and after a text by itself."""
    encoding = tokenizer.backend_tokenizer.encode("a")
    real = [place for place, attended in enumerate(encoding.attention_mask) if attended]
    own = [place for place in real if not encoding.special_tokens_mask[place]]
    if not own:
        return [], []
    return [encoding.ids[place] for place in real if place < own[0]], [encoding.ids[place] for place in real if place > own[-1]]


def _places(tokenizer: PreTrainedTokenizerBase, index: int, before: list[int], after: list[int]) -> int:
    """The flags of a word's token that the tokenizer's template has as well."""
    token = tokenizer.convert_ids_to_tokens(index)
    if index in before[1:] or index in after[:-1]:
        raise ValueError(
            f"Cannot tell where words begin: {type(tokenizer).__name__} writes unknown words as {token!r}, which it also puts "
            f"beside each text, and not outermost. {_ADVICE}"
        )
    edges = " and the ".join(["beginning"] * (index in before) + ["end"] * (index in after))
    warnings.warn(
        f"The tokenizer writes unknown words as {token!r}, which it also puts at the {edges} of a text. There it is taken for "
        "no word: encode texts with their special tokens, or pass `word_ids`; for pairs, pass `word_ids (batch, 2, tokens)`.",
        stacklevel=4,
    )
    return (TEMPLATE_FIRST if index in before else 0) | (TEMPLATE_LAST if index in after else 0)


def _warn_of_lost_white_space(tokenizer: PreTrainedTokenizerBase, table: Tensor) -> None:
    def count(text: str) -> int:
        ids = torch.tensor([tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids], dtype=torch.long)
        return int(word_ids_from_tokens(ids, torch.ones_like(ids), table).max()) + 1 if ids.numel() else 0

    lost = [space for space in _COMMON_WHITE_SPACE if count(f"a{space}a") != count("a a")]
    if lost:
        warnings.warn(
            f"The tokens of {type(tokenizer).__name__} do not show some white space ({', '.join(map(repr, lost))}): words "
            "on both sides of it are taken for one. Replace it by blanks before tokenization, or pass `word_ids`.",
            stacklevel=4,
        )
