"""Sentences of CoNLL-U files with all that stands in them: ten columns, multiword tokens, empty nodes and comments."""

import os
import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from hf_latent.files import BYTE_ORDER_MARK, decoded, read_lines, shorten
from hf_latent.trees import heads as of_heads
from hf_latent.trees.tree import Tree

FORM, HEAD, RELATION = 1, 6, 7
# Of multiword tokens ("3-4") and empty nodes ("3.1").
NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")
NUMBER = re.compile(r"[0-9]{1,9}")
# Of trees without relations: what Universal Dependencies call a dependency that is not specified.
ROOT_RELATION, OTHER_RELATION = "root", "dep"


@dataclass(frozen=True)
class ConlluSentence:
    r"""A sentence of a CoNLL-U file. Joined, its lines are what stands in the file, to the byte.

    Attributes:
        lines: with their ends: comments, words, multiword tokens, empty nodes, and the empty line that ends the sentence.
        numbers: of the lines in the file, from 1.
        source: the file and the sentence, for errors.
    """

    lines: tuple[str, ...]
    numbers: tuple[int, ...] = field(compare=False, repr=False)
    source: str = field(compare=False)

    @cached_property
    def _rows(self) -> list[int]:
        """Which of the lines are words."""
        return [place for place, line in enumerate(self.lines) if _is_word(_text(line))]

    def column(self, number: int) -> tuple[str, ...]:
        """What the words have in a column, from 1 for their numbers to 10: `column(4)` are their parts of speech."""
        return tuple(_text(self.lines[row]).split("\t")[number - 1] for row in self._rows)

    @property
    def words(self) -> tuple[str, ...]:
        return self.column(FORM + 1)

    @property
    def metadata(self) -> dict[str, str]:
        """What the comments of the form `# name = value` say, such as `sent_id` and `text`."""
        found = (re.fullmatch(r"#\s*(\S[^=]*?)\s*=\s*(.*)", _text(line)) for line in self.lines)
        return {match[1]: match[2] for match in found if match}

    def place(self, word: int) -> str:
        """Where a word, from 1, stands in the file."""
        return f"{self.source}, line {self.numbers[self._rows[word - 1]]}"

    def tree(self, single_root: bool = False, relations: Collection[str] | None = None) -> Tree:
        """The tree that the columns of heads and relations hold.

        Args:
            single_root: whether only one word may hang from ROOT.
            relations: those that there may be; by default, any.

        Raises:
            ValueError: heads that form no such tree, or another relation; it names the file, the sentence and the line.
        """
        words, count, heads = self.words, len(self._rows), []
        for word, head in enumerate(self.column(HEAD + 1), start=1):
            if not NUMBER.fullmatch(head) or int(head) > count:
                raise ValueError(
                    f"{self.place(word)}: the head of word {word} must be a number between 0 (ROOT) and {count}, got "
                    f"{shorten(head)!r}."
                )
            heads.append(int(head))
        if cycle := of_heads.cycle(heads):
            way = " from ".join(map(str, [*cycle, cycle[0]] if len(cycle) < 9 else [*cycle[:8], "…"]))
            raise ValueError(
                f"{self.place(min(cycle))}: the heads do not form a tree, with a way from each word to ROOT: word {way} hangs "
                "in a cycle."
            )
        roots = [word for word, head in enumerate(heads, start=1) if not head]
        if single_root and len(roots) > 1:
            raise ValueError(
                f"{self.place(roots[1])}: word {roots[1]} hangs from ROOT, from which word {roots[0]} hangs already."
            )
        found = self.column(RELATION + 1)
        for word, relation in enumerate(found, start=1):
            if relations is not None and relation not in relations:
                raise ValueError(
                    f"{self.place(word)}: the relation of word {word}, {shorten(relation)!r}, is none of the {len(relations)} "
                    f"known ones, {shorten(', '.join(sorted(relations)), 200)}."
                )
        return Tree(words, tuple(heads), relations=() if set(found) == {"_"} else found)

    def with_tree(self, tree: Tree) -> "ConlluSentence":
        """The sentence with the heads and relations of a tree in their columns; nothing else in it changes.

        (Enhanced dependencies, in the ninth column, stay those that they were.)

        Raises:
            ValueError: a tree over other words.
        """
        if tree.words != self.words:
            raise ValueError(f"{self.source}: `tree` must be over its words, got {shorten(' '.join(tree.words))!r}.")
        lines = list(self.lines)
        for row, head, relation in zip(self._rows, tree.heads, relations_of(tree), strict=True):
            fields = lines[row].split("\t")
            fields[HEAD], fields[RELATION] = str(head), relation
            lines[row] = "\t".join(fields)
        return replace(self, lines=tuple(lines))

    def __str__(self) -> str:
        return "".join(self.lines)


def relations_of(tree: Tree) -> tuple[str, ...]:
    """Of each word as CoNLL-U has them; of a tree without relations, those that say nothing."""
    if tree.relations:
        return tuple(relation or "_" for relation in tree.relations)
    return tuple(OTHER_RELATION if head else ROOT_RELATION for head in tree.heads)


class BadSentences:
    """What becomes of sentences that cannot be read: "error", or "skip" with one warning that counts them.

    Raises:
        ValueError: another `choice`.
    """

    def __init__(self, path: str | os.PathLike, choice: str) -> None:
        if choice not in ("error", "skip"):
            raise ValueError(f"`bad_sentences` must be 'error' or 'skip', got {choice!r}.")
        self.path, self.skips = path, choice == "skip"
        self.errors: list[str] = []

    def meet(self, error: ValueError) -> None:
        if not self.skips:
            raise error
        self.errors.append(str(error))

    def tell(self) -> None:
        if self.errors:
            warnings.warn(f"{self.path}: {len(self.errors)} sentences were skipped. The first: {self.errors[0]}", stacklevel=3)


def sentences_of(path: str | os.PathLike, bad: BadSentences, whole: bool) -> Iterator[ConlluSentence]:
    """The sentences of a file, one at a time, of which words and what stands beside them in ten columns are in form.

    Args:
        whole: False to pass over all but words, whatever their number.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read; unless they are to be skipped, a line that is not what the format asks for.
    """
    before: ConlluSentence | None = None
    current = _Sentence(path, 1)
    for number, line in read_lines(path, "CoNLL-U file", whole=True):
        try:
            ends = current.add(number, line, whole)
        except ValueError as error:
            current.is_bad = True
            bad.meet(error)
            continue
        if ends:
            if current.words and not current.is_bad:
                if before is not None:
                    yield before
                before = current.found()
            current = _Sentence(path, current.number + 1)
    if current.words and not current.is_bad:
        if before is not None:
            yield before
        before = current.found()
    elif before is not None:  # comments and empty lines at the end of the file
        before = replace(before, lines=(*before.lines, *current.lines), numbers=(*before.numbers, *current.numbers))
    if before is not None:
        yield before


class _Sentence:
    """A sentence that is being read."""

    def __init__(self, path: str | os.PathLike, number: int) -> None:
        self.path, self.number, self.name = path, number, ""
        self.lines: list[str] = []
        self.numbers: list[int] = []
        self.words = 0
        self.is_bad = False

    @property
    def source(self) -> str:
        return f"{self.path}, sentence {self.number}{self.name}"

    def add(self, number: int, raw: bytes, whole: bool) -> bool:
        """Takes a line; whether the sentence ends with it."""
        line = decoded(raw, f"{self.source}, line {number}")
        text = _text(line) if number == 1 else _without_end(line)
        if not text.strip(" \t"):
            self._keep(number, line, whole)
            return bool(self.words) or self.is_bad
        fields = text.split("\t")
        if text.startswith("#"):
            if name := re.fullmatch(r"#\s*sent_id\s*=\s*(.*)", text):
                self.name = f" ({shorten(name[1])})"
            self._keep(number, line, whole)
        elif len(fields) == 10 and NO_WORD.fullmatch(fields[0]) and "\r" not in text:
            self._keep(number, line, whole)
        elif len(fields) == 10 and fields[0] == str(self.words + 1) and "\r" not in text:
            self.words += 1
            self._keep(number, line, True)
        elif not self.is_bad:
            raise ValueError(
                f"{self.source}, line {number}: expected word {self.words + 1} in ten columns separated by tabs, got "
                f"{shorten(text.strip(' '))!r}."
            )
        return False

    def _keep(self, number: int, line: str, kept: bool) -> None:
        if kept and not self.is_bad:
            self.lines.append(line)
            self.numbers.append(number)

    def found(self) -> ConlluSentence:
        return ConlluSentence(tuple(self.lines), tuple(self.numbers), self.source)


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _text(line: str) -> str:
    """A line without its end, and without a byte order mark, which the first one may have."""
    return _without_end(line).removeprefix(BYTE_ORDER_MARK.decode())


def _is_word(text: str) -> bool:
    return not text.startswith("#") and bool(text.strip(" \t")) and not NO_WORD.fullmatch(text.split("\t")[0])
