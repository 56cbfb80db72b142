"""Word vectors in GloVe's text format, and the tokenizer that goes with them."""

import gzip
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, SEPARATOR = "[PAD]", "[UNK]", "[SEP]"


def read_word_vectors(path: str | os.PathLike, vocabulary: Iterable[str] | None = None) -> tuple[list[str], Tensor]:
    """The words of a file and their vectors, `(words, size)` in float32, in the order of the file.

    Args:
        path: a text file, a line a word: the word, then its numbers, separated by single spaces; plain or gzipped
            (`.gz`). A first line of two whole numbers (word2vec's and fastText's header) is passed over.
        vocabulary: the words to keep, by default all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not a word and its numbers (the error names it), or no word that is wanted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No word-vector file at {str(path)!r}.")
    wanted = None if vocabulary is None else set(vocabulary)
    vectors: dict[str, np.ndarray] = {}
    size = None
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(tqdm(file, desc=f"Reading {path.name}", unit=" words", leave=False), start=1):
            fields = line.rstrip("\r\n").rstrip(" ").split(" ")
            if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
                continue
            if size is None:
                size = len(fields) - 1
            # From the right: some words of GloVe's 840B file contain spaces.
            word = " ".join(fields[: len(fields) - size])
            vector = _numbers(fields[len(fields) - size :]) if len(fields) > size > 0 else None
            if vector is None or not word:
                shown = line.strip() if len(line) <= 60 else line[:60] + "…"
                raise ValueError(
                    f"{path}, line {number}: expected a word and {size if size else 'its'} finite numbers, separated by single "
                    f"spaces, got {shown!r}. Mend or remove the line (a file that was cut off while copying ends so)."
                )
            if word not in vectors and (wanted is None or word in wanted):
                vectors[word] = vector
    if not vectors:
        what = "no line" if wanted is None else f"none of the {len(wanted)} words of `vocabulary`"
        raise ValueError(f"{path} holds {what}, so there is no word to make a model of.")
    return list(vectors), torch.from_numpy(np.stack(list(vectors.values())))


def _numbers(fields: list[str]) -> np.ndarray | None:
    try:
        vector = np.array(fields, dtype=np.float32)
    except ValueError:
        return None
    return vector if np.isfinite(vector).all() else None


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
        tokenizer.normalizer = normalizers.Lowercase()
    split = pre_tokenizers.BertPreTokenizer() if split_punctuation else pre_tokenizers.WhitespaceSplit()
    tokenizer.pre_tokenizer = split
    special = {"pad_token": PAD, "unk_token": UNKNOWN}
    if pairs:
        special["sep_token"] = SEPARATOR
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A", pair=f"$A {SEPARATOR} $B", special_tokens=[(SEPARATOR, vocabulary[SEPARATOR])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **special)
