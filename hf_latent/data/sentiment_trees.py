"""The Stanford Sentiment Treebank (Socher et al. 2013), in its own format: a tree a line, `(3 (2 Good) (2 films))`."""

import os
import re

from datasets import Dataset

from hf_latent.files import read_text, shorten

NEUTRAL = 2
LABELS = {str(label): label for label in range(5)}
# As the Penn Treebank writes what would be taken for a bracket of its own.
BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
TOKEN = re.compile(r"[()]|[^ \t()]+")


def load_sentiment_trees(path: str | os.PathLike, binary: bool = True, phrases: bool = False, words: bool = False) -> Dataset:
    r"""Columns `text` and `label`; a row a sentence. Brackets (`-LRB-`) and slashes (`\/`) are as they are in text.

    Args:
        path: `train.txt`, `dev.txt` or `test.txt` of the treebank, plain or gzipped.
        binary: labels 0 (negative) and 1 (positive), without the neutral ones, as in the paper; else 0 to 4.
        phrases: also a row for each phrase of a sentence, the sentence first.
        words: also columns `words`, of which the `text` is made, and `word_labels`, 0 to 4 for each: those that are not 2 are
            marked as words of feeling.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not a tree or not in UTF-8 (the error names it), or no sentence.
    """
    columns: dict[str, list] = {name: [] for name in ("text", "label", *(("words", "word_labels") if words else ()))}
    for number, line in read_text(path, "sentiment treebank"):
        if not line.strip(" \t"):
            continue
        try:
            own_words, found = _phrases(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        # The innermost phrase of a single word is the word itself, and comes last.
        of_words = {start: label for start, end, label in found if end == start + 1}
        for start, end, label in found if phrases else found[:1]:
            if not binary or label != NEUTRAL:
                columns["text"].append(" ".join(own_words[start:end]))
                columns["label"].append(int(label > NEUTRAL) if binary else label)
                if words:
                    columns["words"].append(own_words[start:end])
                    columns["word_labels"].append([of_words[place] for place in range(start, end)])
    if not columns["text"]:
        raise ValueError(f"{path} has no sentence in it{' that is not neutral' if binary else ''}.")
    return Dataset.from_dict(columns)


def _phrases(line: str) -> tuple[list[str], list[tuple[int, int, int]]]:
    """The words of a line and, for the sentence and each phrase in it, its first word, its end and its label."""
    expected = ValueError(f"expected a tree such as '(3 (2 Good) (2 films))', got {shorten(line)!r}.")
    words: list[str] = []
    found: list[tuple[int, int, int]] = []
    open_phrases: list[int] = []  # their places in `found`
    tokens = (match[0] for match in TOKEN.finditer(line))
    for token in tokens:
        if token == "(":
            label = LABELS.get(next(tokens, ""))
            if label is None or (found and not open_phrases):
                raise expected
            open_phrases.append(len(found))
            found.append((len(words), 0, label))
        elif not open_phrases:
            raise expected
        elif token == ")":
            place = open_phrases.pop()
            start, _, label = found[place]
            if start == len(words):
                raise expected
            found[place] = (start, len(words), label)
        else:
            words.append(BRACKETS.get(token, token.replace("\\/", "/").replace("\\*", "*")))
    if open_phrases or not found:
        raise expected
    return words, found
