"""The Stanford Sentiment Treebank (Socher et al. 2013), in its own format: a tree a line, `(3 (2 Good) (2 films))`."""

import os
import re
from pathlib import Path

from datasets import Dataset

NEUTRAL = 2
BRACKETS = {"-LRB-": "(", "-RRB-": ")"}
TOKEN = re.compile(r"\(|\)|[^\s()]+")


def load_sentiment_trees(path: str | os.PathLike, binary: bool = True, phrases: bool = False) -> Dataset:
    """Columns `text` and `label`; a row a sentence.

    Args:
        path: `train.txt`, `dev.txt` or `test.txt` of the treebank.
        binary: labels 0 (negative) and 1 (positive), without the neutral ones, as in the paper; else 0 to 4.
        phrases: also a row for each phrase of a sentence, the sentence first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not a tree (the error names it), or no line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No sentiment treebank at {str(path)!r}.")
    texts, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = _phrases(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        for words, label in found if phrases else found[:1]:
            if not binary or label != NEUTRAL:
                texts.append(" ".join(words))
                labels.append(int(label > NEUTRAL) if binary else label)
    if not texts:
        raise ValueError(f"{path} has no sentence in it.")
    return Dataset.from_dict({"text": texts, "label": labels})


def _phrases(line: str) -> list[tuple[list[str], int]]:
    """The words and the label of the sentence and of each phrase in it."""
    expected = ValueError(f"expected a tree such as '(3 (2 Good) (2 films))', got {line[:60]!r}.")
    found: list[tuple[list[str], int]] = []
    open_phrases: list[tuple[list[str], int]] = []
    tokens, place = TOKEN.findall(line), 0
    while place < len(tokens):
        token = tokens[place]
        if token == "(":
            if place + 1 >= len(tokens) or tokens[place + 1] not in "01234" or (found and not open_phrases):
                raise expected
            found.append(([], int(tokens[place + 1])))
            open_phrases.append(found[-1])
            place += 1
        elif not open_phrases:
            raise expected
        elif token == ")":
            if not open_phrases.pop()[0]:
                raise expected
        else:
            for words, _ in open_phrases:
                words.append(BRACKETS.get(token, token))
        place += 1
    if open_phrases or not found:
        raise expected
    return found
