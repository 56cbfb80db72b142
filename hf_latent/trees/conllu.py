"""Trees in CoNLL-U, the format of Universal Dependencies: ten columns a word, an empty line after each sentence."""

import gzip
import os
import re
from collections.abc import Iterable
from pathlib import Path

from hf_latent.trees.tree import Tree

# Of multiword tokens ("3-4") and empty nodes ("3.1").
NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")
NUMBER = re.compile(r"[0-9]+")


def read_conllu(path: str | os.PathLike) -> list[Tree]:
    """The trees of a file, plain or gzipped (`.gz`). Multiword tokens and empty nodes, which are no words, are passed over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no sentence in it, or a line or a tree that is not what the format asks for (the error names it).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No CoNLL-U file at {str(path)!r}.")
    trees: list[Tree] = []
    words: list[str] = []
    heads: list[int] = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate([*file, "\n"], start=1):
            fields = line.rstrip("\r\n").split("\t")
            if fields[0].startswith("#") or (len(fields) == 10 and NO_WORD.fullmatch(fields[0])):
                continue
            if line.strip():
                if len(fields) != 10 or fields[0] != str(len(words) + 1) or not NUMBER.fullmatch(fields[6]):
                    raise ValueError(
                        f"{path}, line {number}: expected word {len(words) + 1} in ten columns separated by tabs, its head (a "
                        f"number) the seventh, got {line.strip()[:60]!r}."
                    )
                words.append(fields[1])
                heads.append(int(fields[6]))
            elif words:
                try:
                    trees.append(Tree(tuple(words), tuple(heads)))
                except ValueError as error:
                    raise ValueError(f"{path}, the sentence that ends in line {number - 1}: {error}") from None
                words, heads = [], []
    if not trees:
        raise ValueError(f"{path} has no sentence in it.")
    return trees


def write_conllu(trees: Iterable[Tree], path: str | os.PathLike) -> None:
    """Write trees to a file (gzipped, if it ends in `.gz`); the weights of soft trees stand in the last column.

    Raises:
        ValueError: a sentence without words, or a word with a tab or a line break in it, for which the format has no place.
    """
    path, trees = Path(path), list(trees)
    for place, tree in enumerate(trees):
        if not tree.words or any(set(word) & set("\t\n\r\v\f\x85\u2028\u2029") for word in tree.words):
            raise ValueError(
                f"trees[{place}] cannot be written as CoNLL-U, which has no place for sentences without words, and for tabs "
                f"and line breaks within words; its words are {list(tree.words)}. Leave it out."
            )
    with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8") as file:
        for tree in trees:
            file.write(f"# text = {' '.join(tree.words)}\n")
            for place, (word, head) in enumerate(zip(tree.words, tree.heads, strict=True)):
                relation = "dep" if head else "root"
                extra = f"Weight={tree.weights[place]:.4f}" if tree.weights else "_"
                file.write("\t".join([str(place + 1), word or "_", "_", "_", "_", "_", str(head), relation, "_", extra]) + "\n")
            file.write("\n")
