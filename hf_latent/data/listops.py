"""ListOps (Nangia and Bowman 2018): nested list operations over digits, whose answer needs the tree of the expression."""

import os
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from datasets import Dataset

from hf_latent.files import read_text, shorten

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
            raise _no_expression(tokens, f"token {place}, {shorten(word)!r}")
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
            raise _no_expression(tokens, f"token {place}, {shorten(word)!r}")
    if answer is None:
        raise _no_expression(tokens, "a list is not closed")
    return Expression(tuple(tokens), answer, tuple(heads))


def _no_expression(tokens: list[str], why: str) -> ValueError:
    return ValueError(f"Not an expression: {shorten(' '.join(tokens), 200)!r} ({why}).")


# After so many draws without a new expression, there are hardly any more.
MOST_DRAWS = 100_000


def generate(
    count: int,
    longest: int,
    seed: int,
    depth: int = 3,
    operators: tuple[str, ...] = tuple(OPERATORS),
    shortest: int = 4,
    least_depth: int = 1,
    operands: tuple[int, int] = (2, 4),
) -> list[Expression]:
    """Random expressions, all different.

    Args:
        count: how many.
        longest, shortest: the number of tokens that they have at most and at least.
        seed: of the generator.
        depth, least_depth: how many lists lie within each other at most and at least.
        operators: of `OPERATORS`.
        operands: how many a list has at least and at most.

    Raises:
        ValueError: a `count` below 0; fewer than `count` such expressions could be found; `longest` less than 4 (an operator,
            two operands and the bracket) or than `shortest`; `least_depth` less than 1 or above `depth`; `operands` below 1, or
            in the wrong order; no operators, or unknown ones.
    """
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"`count` must be an integer, 0 or more, got {count!r}.")
    if longest < 4 or depth < 1:
        raise ValueError(f"`longest` must be at least 4, and `depth` at least 1, got {longest} and {depth}.")
    if shortest > longest:
        raise ValueError(f"`shortest` must be at most `longest`, got {shortest} and {longest}.")
    if not 1 <= least_depth <= depth:
        raise ValueError(f"`least_depth` must be from 1 to `depth`, got {least_depth} and {depth}.")
    if not 1 <= operands[0] <= operands[1]:
        raise ValueError(f"`operands` must be the least and the largest number of them, 1 or more, got {operands!r}.")
    if not operators or not set(operators) <= set(OPERATORS):
        raise ValueError(f"`operators` must be some of {', '.join(OPERATORS)}, got {operators!r}.")
    source = random.Random(seed)
    found: dict[tuple[str, ...], None] = {}

    def draw(levels: int) -> tuple[list[str], int]:
        """The tokens of a list, or of its beginning, as soon as that is far too long; and how deep it is."""
        tokens, deepest = [""], 1
        open_lists = [(0, source.randint(*operands))]  # where each began, and how many operands it lacks
        while open_lists and len(tokens) <= 10 * longest:
            start, lacking = open_lists.pop()
            if not lacking:
                tokens[start] = source.choice(operators)
                tokens.append("]")
                continue
            open_lists.append((start, lacking - 1))
            if len(open_lists) < levels and source.random() < 0.35:
                open_lists.append((len(tokens), source.randint(*operands)))
                tokens.append("")
                deepest = max(deepest, len(open_lists))
            else:
                tokens.append(source.choice(DIGITS))
        return tokens, deepest

    in_vain = 0
    while len(found) < count:
        drawn, deepest = draw(source.randint(least_depth, depth))
        tokens = tuple(drawn)
        fits = shortest <= len(tokens) <= longest and deepest >= least_depth
        in_vain = 0 if fits and tokens not in found else in_vain + 1
        if in_vain == 0:
            found[tokens] = None
        elif in_vain == MOST_DRAWS:
            raise ValueError(
                f"Found {len(found)} different expressions of at most {longest} tokens, and hardly any more are there; `count` "
                f"is {count}. Ask for fewer, or for a larger `longest`."
            )
    return [read(list(tokens)) for tokens in found]


def read_file(path: str | os.PathLike) -> list[Expression]:
    """Expressions from a file of `answer<TAB>expression` lines, plain or gzipped; parentheses are passed over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no expression, has another answer, or is not in UTF-8 (the error names it), or no line.
    """
    found = []
    for number, line in read_text(path, "ListOps file"):
        answer, _, text = line.partition("\t")
        try:
            expression = read([word for word in text.split() if word not in ("(", ")")])
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        if str(expression.answer) != answer:
            tokens = shorten(" ".join(expression.tokens), 200)
            given = answer if answer in DIGITS else repr(shorten(answer))
            raise ValueError(f"{path}, line {number}: the answer to {tokens!r} is not {given}.")
        found.append(expression)
    if not found:
        raise ValueError(f"{path} has no expression in it.")
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
