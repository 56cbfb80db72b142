"""ListOps (Nangia and Bowman 2018): nested list operations over digits, whose answer needs the tree of the expression."""

import os
import random
import statistics
from collections.abc import Callable

from datasets import Dataset

from hf_latent.data.expressions import Expression, check_shape, distinct, no_expression
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
            raise no_expression(tokens, f"token {place}, {shorten(word)!r}")
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
            raise no_expression(tokens, f"token {place}, {shorten(word)!r}")
    if answer is None:
        raise no_expression(tokens, "a list is not closed")
    return Expression(tuple(tokens), answer, tuple(heads))


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
    check_shape(count, longest, shortest, depth, least_depth, least_tokens=4)
    if not 1 <= operands[0] <= operands[1]:
        raise ValueError(f"`operands` must be the least and the largest number of them, 1 or more, got {operands!r}.")
    if not operators or not set(operators) <= set(OPERATORS):
        raise ValueError(f"`operators` must be some of {', '.join(OPERATORS)}, got {operators!r}.")
    source = random.Random(seed)

    def draw() -> Expression | None:
        tokens, deepest = _draw(source, source.randint(least_depth, depth), longest, operators, operands)
        return read(tokens) if shortest <= len(tokens) <= longest and deepest >= least_depth else None

    return distinct(draw, count)


def _draw(
    source: random.Random, levels: int, longest: int, operators: tuple[str, ...], operands: tuple[int, int]
) -> tuple[list[str], int]:
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
