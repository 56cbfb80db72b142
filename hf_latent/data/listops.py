"""ListOps (Nangia and Bowman 2018): nested list operations over digits, whose answer needs the tree of the expression."""

import gzip
import os
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MAX": max,
    "[MIN": min,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
    "[FIRST": lambda values: values[0],
    "[LAST": lambda values: values[-1],
}
DIGITS = [str(digit) for digit in range(10)]
TOKENS = [*OPERATORS, "]", *DIGITS]


@dataclass(frozen=True)
class Expression:
    """`[MAX 2 9 [MIN 4 7 ] 0 ]`, token by token, its answer, and its tree: each operand hangs from its operator.

    The words of the tree are operators and digits; the closing brackets are its punctuation. The outermost operator hangs from
    ROOT. As CoNLL-U numbers heads: 0 for ROOT, j for the j-th word.
    """

    tokens: tuple[str, ...]
    answer: int
    heads: tuple[int, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The tokens that are words."""
        return tuple(token for token in self.tokens if token != "]")


def read(tokens: list[str]) -> Expression:
    """The answer and the tree of an expression.

    Raises:
        ValueError: tokens that are no expression.
    """
    heads: list[int] = []
    open_lists: list[tuple[int, str, list[int]]] = []  # where each began, its operator, and its values so far
    answer = None
    for place, word in enumerate(tokens, start=1):
        if answer is not None or (not open_lists and word == "]"):
            raise ValueError(f"Not an expression: {' '.join(tokens)!r} (token {place}, {word!r}).")
        if word != "]":
            heads.append(open_lists[-1][0] if open_lists else 0)
        if word in OPERATORS:
            open_lists.append((len(heads), word, []))
        elif word in DIGITS and open_lists:
            open_lists[-1][2].append(int(word))
        elif word in DIGITS:
            answer = int(word)
        elif word == "]" and open_lists[-1][2]:
            _, operator, values = open_lists.pop()
            value = OPERATORS[operator](values)
            if open_lists:
                open_lists[-1][2].append(value)
            else:
                answer = value
        else:
            raise ValueError(f"Not an expression: {' '.join(tokens)!r} (token {place}, {word!r}).")
    if answer is None:
        raise ValueError(f"Not an expression: {' '.join(tokens)!r} (a list is not closed).")
    return Expression(tuple(tokens), answer, tuple(heads))


def generate(
    count: int, longest: int, seed: int, depth: int = 3, operators: tuple[str, ...] = tuple(OPERATORS)
) -> list[Expression]:
    """Random expressions of at most `longest` tokens and at most `depth` lists within each other, all different."""
    source = random.Random(seed)
    found: dict[tuple[str, ...], None] = {}

    def draw(levels: int) -> list[str]:
        operands = []
        for _ in range(source.randint(2, 4)):
            nested = levels > 1 and source.random() < 0.35
            operands += draw(levels - 1) if nested else [source.choice(DIGITS)]
        return [source.choice(operators), *operands, "]"]

    while len(found) < count:
        tokens = draw(source.randint(1, depth))
        if len(tokens) <= longest:
            found[tuple(tokens)] = None
    return [read(list(tokens)) for tokens in found]


def read_file(path: str | os.PathLike) -> list[Expression]:
    """Expressions from a file of `answer<TAB>expression` lines, plain or gzipped; parentheses are passed over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no expression, or has another answer.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No ListOps file at {str(path)!r}.")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        lines = [line.rstrip("\n") for line in file]
    found = []
    for number, line in enumerate(lines, start=1):
        answer, _, text = line.partition("\t")
        try:
            expression = read([word for word in text.split() if word not in "()"])
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        if str(expression.answer) != answer:
            raise ValueError(f"{path}, line {number}: the answer to {' '.join(expression.tokens)!r} is not {answer}.")
        found.append(expression)
    return found


def load_listops(path: str | os.PathLike) -> Dataset:
    """Columns `tokens`, `words` (the tokens but for closing brackets), `heads` (of the words) and `label`, the answer.

    Raises:
        FileNotFoundError, ValueError: see `read_file`.
    """
    found = read_file(path)
    return Dataset.from_dict(
        {
            "tokens": [list(one.tokens) for one in found],
            "words": [list(one.words) for one in found],
            "heads": [list(one.heads) for one in found],
            "label": [one.answer for one in found],
        }
    )
