"""Word vectors in GloVe's text format, and the tokenizer that goes with them."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from hf_latent.files import read_lines, shorten

PAD, UNKNOWN, SEPARATOR = "[PAD]", "[UNK]", "[SEP]"
LOWERCASE = normalizers.Lowercase()
HEADER = re.compile(rb"\s*([0-9]{1,12})\s+([1-9][0-9]{0,11})\s*")
NUMBER = re.compile(rb"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
# So many lines are asked how many numbers a word has, since any of them may be the one that is wrong.
LINES_ASKED = 10


def read_word_vectors(
    path: str | os.PathLike, vocabulary: Iterable[str] | None = None, skip_bad_lines: bool = False
) -> tuple[list[str], Tensor]:
    """The words of a file and their vectors, `(words, size)` in float32, in the order of the file.

    A word may have blanks in it, as some have in GloVe's 840B file, but no number behind a blank: that is taken for a line
    with a number too many. Of a word that comes twice, the first vector is kept.

    Args:
        path: a text file in UTF-8, plain or gzipped, a line a word: the word, then its numbers, separated by blanks or tabs. A
            first line of two whole numbers (word2vec's and fastText's header) is how many words follow, and how many numbers
            each of them has.
        vocabulary: the words to keep, by default all.
        skip_bad_lines: whether to pass over lines that are not a word and its numbers, with one warning that counts them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not a word and its numbers, or a header that does not agree with the file (the error names
            the line); compressed data that is damaged or cut off; no word that is wanted.
    """
    wanted = None if vocabulary is None else set(vocabulary)
    lines = read_lines(path, "word-vector file")
    asked = list(islice(lines, LINES_ASKED))
    count, size = _count_and_size([line for _, line in asked])
    if count is not None:
        del asked[0]
    words: dict[str, None] = {}
    values = bytearray()
    bad, first_bad = 0, ""

    def refuse(number: int, reason: str) -> None:
        nonlocal bad, first_bad
        if not skip_bad_lines:
            raise ValueError(f"{path}, line {number}: {reason} Mend or remove the line, or pass `skip_bad_lines=True`.")
        bad, first_bad = bad + 1, first_bad or f"line {number}: {reason}"

    followed = 0
    progress = tqdm(chain(asked, lines), desc=f"Reading {Path(path).name}", unit=" words", leave=False)
    with np.errstate(over="ignore"):
        for number, line in progress:
            followed += 1
            entry = _entry(line, size)
            if entry is None:
                got = shorten(line[:1000].decode(errors="backslashreplace").strip())
                refuse(
                    number,
                    f"expected a word and {size} finite numbers, in UTF-8 and separated by blanks or tabs, got {got!r} (a file "
                    "that was cut off ends so; word2vec's binary files are to be converted to text).",
                )
            elif entry[0] not in words and (wanted is None or entry[0] in wanted):
                words[entry[0]] = None
                values += entry[1].tobytes()
    if count not in (None, followed):
        refuse(1, f"this header says that {count} words follow, and {followed} lines do, as in a file that was cut off.")
    if bad:
        warnings.warn(f"{path}: {bad} bad lines were passed over, of which the first is {first_bad}", stacklevel=2)
    if not words:
        what = "no line of a word and its numbers" if wanted is None else f"none of the {len(wanted)} words of `vocabulary`"
        raise ValueError(f"{path} holds {what}, so there is no word to make a model of.")
    return list(words), torch.frombuffer(values, dtype=torch.float32).view(-1, size)


def _count_and_size(lines: Sequence[bytes]) -> tuple[int | None, int]:
    """The number of words, if the first line is a header that tells it, and how many numbers each has."""
    header = HEADER.fullmatch(lines[0]) if lines else None
    return (int(header[1]), int(header[2])) if header else (None, _numbers_of_a_word(lines))


def _numbers_of_a_word(lines: Sequence[bytes]) -> int:
    """How many numbers most of the lines end in, at least 1; of those that as many lines have, the largest."""
    counts = Counter(max(_numbers_at_the_end(line.split()[1:]), 1) for line in lines)
    return max(counts, key=lambda size: (counts[size], size), default=1)


def _numbers_at_the_end(fields: Sequence[bytes]) -> int:
    return next((place for place, field in enumerate(reversed(fields)) if not NUMBER.fullmatch(field)), len(fields))


def _entry(line: bytes, size: int) -> tuple[str, np.ndarray] | None:
    """The word and the vector of a line, if they can be told apart."""
    fields = line.rsplit(None, size)
    if len(fields) <= size or b"\r" in line or b"_" in line[len(fields[0]) :]:  # NumPy takes 1_0 for 10
        return None
    word = fields.pop(0)
    if any(map(NUMBER.fullmatch, word.split()[1:])):
        return None
    try:
        text, vector = word.strip().decode(), np.array(fields, dtype=np.float32)
    except ValueError:
        return None
    return (text, vector) if np.isfinite(vector).all() else None


def read_words_for_text(
    path: str | os.PathLike, vocabulary: Iterable[str] | None, lowercase: bool | None, pairs: bool, skip_bad_lines: bool
) -> tuple[list[str], Tensor, bool]:
    """The words of a file and their vectors, with those for `[UNK]` and, of pairs, `[SEP]`, and whether to lower-case text.

    With `lowercase=None`, text is lower-cased if less than one in a hundred of the words has capitals. Warns if there are any
    that lower-cased text can then not reach.
    """
    if vocabulary is not None:
        given = set(vocabulary)
        lower = set() if lowercase is False else {LOWERCASE.normalize_str(word) for word in given}
        vocabulary = lower | (set() if lowercase else given) | ({UNKNOWN, SEPARATOR} if pairs else {UNKNOWN})
    words, vectors = read_word_vectors(path, vocabulary, skip_bad_lines)
    capitals = [word for word in words if LOWERCASE.normalize_str(word) != word and word not in (PAD, UNKNOWN, SEPARATOR)]
    if lowercase is None:
        lowercase = len(capitals) < len(words) / 100
    if lowercase and capitals:
        warnings.warn(
            f"{len(capitals)} of the {len(words)} words of {path} have capitals ({shorten(capitals[0])!r}, for example), "
            "and are never found in text that is lower-cased: pass `lowercase=False` to look words up as they are written.",
            stacklevel=3,
        )
    return words, vectors, lowercase


def word_tokenizer(
    words: Iterable[str], lowercase: bool = True, split_punctuation: bool = False, pairs: bool = False
) -> PreTrainedTokenizerFast:
    """A fast tokenizer with one token a word: `[PAD]` is 0, `[UNK]` is 1, then `words` in their order.

    Text is split at white space, and with `split_punctuation` at punctuation as well. With `pairs`, `[SEP]` is 2 and stands
    between the two sentences of a pair.
    """
    vocabulary = {PAD: 0, UNKNOWN: 1, SEPARATOR: 2} if pairs else {PAD: 0, UNKNOWN: 1}
    for word in words:
        vocabulary.setdefault(word, len(vocabulary))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    if lowercase:
        tokenizer.normalizer = LOWERCASE
    split = pre_tokenizers.BertPreTokenizer() if split_punctuation else pre_tokenizers.WhitespaceSplit()
    tokenizer.pre_tokenizer = split
    special = {"pad_token": PAD, "unk_token": UNKNOWN}
    if pairs:
        special["sep_token"] = SEPARATOR
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A", pair=f"$A {SEPARATOR} $B", special_tokens=[(SEPARATOR, vocabulary[SEPARATOR])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **special)
