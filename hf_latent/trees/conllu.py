"""Trees in CoNLL-U, the format of Universal Dependencies: ten columns a word, an empty line after each sentence."""

import gzip
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from hf_latent.files import shorten, write_file
from hf_latent.trees.conllu_sentence import BadSentences, ConlluSentence, relations_of, sentences_of
from hf_latent.trees.tree import Tree

# What would end a column or a line, or cannot be written: half of a surrogate pair.
NO_PLACE = re.compile("[\t\n\r\ud800-\udfff]")


def read_conllu(
    path: str | os.PathLike,
    single_root: bool = False,
    relations: Collection[str] | None = None,
    bad_sentences: str = "error",
) -> list[Tree]:
    r"""The trees of a file, plain or gzipped. Multiword tokens and empty nodes, which are no words, are passed over.

    Lines end in `\n` or `\r\n`; other characters that some take for line breaks are part of the word that they stand in. A
    sentence whose relations are all `_` has a tree without relations. (Of files that are to be written again, or that have no
    trees in them, `read_conllu_sentences` keeps everything.)

    Args:
        single_root: whether only one word of a sentence may hang from ROOT.
        relations: those that there may be, such as `model.config.label2id`; by default, any.
        bad_sentences: what becomes of sentences that cannot be read: "error", or "skip", with one warning that counts them and
            tells of the first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no sentence in it; a line or a tree that is not what was asked for (the error names the file, the sentence
            and the line), unless it is to be skipped.
    """
    bad, trees = BadSentences(path, bad_sentences), []
    for sentence in sentences_of(path, bad, whole=False):
        try:
            trees.append(sentence.tree(single_root, relations))
        except ValueError as error:
            bad.meet(error)
    bad.tell()
    if not trees:
        raise ValueError(f"{path} has no sentence in it{' that can be read' if bad.errors else ''}.")
    return trees


def read_conllu_sentences(path: str | os.PathLike, bad_sentences: str = "error") -> list[ConlluSentence]:
    """The sentences of a file with all that stands in it, parsed or not: written again, they are the same to the byte.

    Comments and empty lines behind the last sentence are part of it.

    Args:
        bad_sentences: as in `read_conllu`.

    Raises:
        FileNotFoundError, ValueError: see `read_conllu`; heads and relations may be anything.
    """
    bad = BadSentences(path, bad_sentences)
    sentences = list(sentences_of(path, bad, whole=True))
    bad.tell()
    if not sentences:
        raise ValueError(f"{path} has no sentence in it{' that can be read' if bad.errors else ''}.")
    return sentences


def write_conllu(trees: Iterable[Tree | ConlluSentence], path: str | os.PathLike) -> None:
    """Write trees, or sentences as they were read, to a file (gzipped, if it ends in `.gz`), whole or, where that fails, not
    at all.

    The weights of soft trees stand in the last column; an empty word is written as `_`. Of a tree without relations, these are
    `dep`, and `root` below ROOT.

    Raises:
        ValueError: a sentence without words, or a word or relation that the format has no place for: with a tab or a line break
            in it, or with half of a surrogate pair.
    """
    content = "".join(
        str(tree) if isinstance(tree, ConlluSentence) else to_conllu(tree, f"trees[{number}]")
        for number, tree in enumerate(trees)
    ).encode()
    write_file(path, gzip.compress(content) if Path(path).suffix == ".gz" else content)


def to_conllu(tree: Tree, name: str = "`tree`") -> str:
    """A tree as CoNLL-U has it, with the empty line at the end; see `write_conllu`.

    Args:
        name: of the tree, for the error.
    """
    if not tree.words or any(map(NO_PLACE.search, (*tree.words, *tree.relations))):
        raise ValueError(
            f"{name} cannot be written as CoNLL-U, which has no place for sentences without words, and for tabs, line breaks "
            f"and halves of surrogate pairs within words; its words are {shorten(str(list(tree.words)), 300)}. Leave it out."
        )
    lines = [f"# text = {' '.join(tree.words)}"]
    for place, (word, head, relation) in enumerate(zip(tree.words, tree.heads, relations_of(tree), strict=True)):
        extra = f"Weight={tree.weights[place]:.4f}" if tree.weights else "_"
        lines.append("\t".join([str(place + 1), word or "_", "_", "_", "_", "_", str(head), relation, "_", extra]))
    return "".join(f"{line}\n" for line in [*lines, ""])
