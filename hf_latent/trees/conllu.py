"""Trees in CoNLL-U, the format of Universal Dependencies: ten columns a word, an empty line after each sentence."""

import gzip
import os
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from hf_latent.files import read_text, shorten, write_file
from hf_latent.trees.tree import Tree

# Of multiword tokens ("3-4") and empty nodes ("3.1").
NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")
NUMBER = re.compile(r"[0-9]{1,9}")
# What would end a column or a line, or cannot be written: half of a surrogate pair.
NO_PLACE = re.compile("[\t\n\r\ud800-\udfff]")


def read_conllu(path: str | os.PathLike) -> list[Tree]:
    r"""The trees of a file, plain or gzipped. Multiword tokens and empty nodes, which are no words, are passed over.

    Lines end in `\n` or `\r\n`; other characters that some take for line breaks are part of the word that they stand in.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no sentence in it, or a line or a tree that is not what the format asks for (the error names it).
    """
    trees: list[Tree] = []
    words: list[str] = []
    heads: list[int] = []
    last = 0  # the line of the last word
    for number, line in chain(read_text(path, "CoNLL-U file"), [(0, "")]):
        fields = line.split("\t")
        if fields[0].startswith("#") or (len(fields) == 10 and NO_WORD.fullmatch(fields[0])):
            continue
        if line.strip(" \t"):
            if len(fields) != 10 or fields[0] != str(len(words) + 1) or not NUMBER.fullmatch(fields[6]) or "\r" in line:
                raise ValueError(
                    f"{path}, line {number}: expected word {len(words) + 1} in ten columns separated by tabs, its head (a "
                    f"number) the seventh, got {shorten(line.strip(' '))!r}."
                )
            words.append(fields[1])
            heads.append(int(fields[6]))
            last = number
        elif words:
            try:
                trees.append(Tree(tuple(words), tuple(heads)))
            except ValueError as error:
                raise ValueError(f"{path}, the sentence that ends in line {last}: {error}") from None
            words, heads = [], []
    if not trees:
        raise ValueError(f"{path} has no sentence in it.")
    return trees


def write_conllu(trees: Iterable[Tree], path: str | os.PathLike) -> None:
    """Write trees to a file (gzipped, if it ends in `.gz`), whole or, where that fails, not at all.

    The weights of soft trees stand in the last column; an empty word is written as `_`.

    Raises:
        ValueError: a sentence without words, or a word that the format has no place for: with a tab or a line break in it, or
            with half of a surrogate pair.
    """
    lines = []
    for number, tree in enumerate(trees):
        if not tree.words or any(map(NO_PLACE.search, tree.words)):
            raise ValueError(
                f"trees[{number}] cannot be written as CoNLL-U, which has no place for sentences without words, and for tabs, "
                f"line breaks and halves of surrogate pairs within words; its words are {shorten(str(list(tree.words)), 300)}. "
                "Leave it out."
            )
        lines.append(f"# text = {' '.join(tree.words)}")
        for place, (word, head) in enumerate(zip(tree.words, tree.heads, strict=True)):
            relation = "dep" if head else "root"
            extra = f"Weight={tree.weights[place]:.4f}" if tree.weights else "_"
            lines.append("\t".join([str(place + 1), word or "_", "_", "_", "_", "_", str(head), relation, "_", extra]))
        lines.append("")
    content = "".join(f"{line}\n" for line in lines).encode()
    write_file(path, gzip.compress(content) if Path(path).suffix == ".gz" else content)
