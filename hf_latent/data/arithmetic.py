"""Arithmetic modulo 7 as it is written, `2 * ( 3 + 4 ) - 5`: the answer needs precedence, brackets, and order.

Modulo 7, there is `/` beside `*`: a / b is the digit that makes a when it is multiplied by b. Without it, `2 * 3 * 4` would
have the same answer by either of two trees.
"""

import random
from collections.abc import Callable

from hf_latent.data.expressions import Expression, check_shape, distinct, no_expression
from hf_latent.files import shorten

MODULUS = 7
DIGITS = [str(digit) for digit in range(MODULUS)]
OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda left, right: (left + right) % MODULUS,
    "-": lambda left, right: (left - right) % MODULUS,
    "*": lambda left, right: (left * right) % MODULUS,
    "/": lambda left, right: (left * pow(right, -1, MODULUS)) % MODULUS,
}
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
TOKENS = [*OPERATORS, "(", ")", *DIGITS]


class DivisionByZero(ValueError):
    """An expression has no answer."""


def read(tokens: list[str]) -> Expression:
    """The answer and the tree of an expression: products and quotients first, then from left to right.

    Raises:
        ValueError: tokens that are no expression.
        DivisionByZero: a ValueError; an expression without an answer.
    """
    operands: list[tuple[int, int]] = []  # of what is not calculated yet: value, and the word at its top, counted from 1
    waiting: list[tuple[str, int]] = []  # operators and opening brackets, and which word each is
    heads: list[int] = []

    def calculate() -> None:
        operator, word = waiting.pop()
        (left, left_word), (right, right_word) = operands.pop(-2), operands.pop()
        if operator == "/" and right == 0:
            raise DivisionByZero(f"{shorten(' '.join(tokens), 200)!r} divides by 0, modulo {MODULUS}.")
        heads[left_word - 1] = heads[right_word - 1] = word
        operands.append((OPERATORS[operator](left, right), word))

    operand_expected = True
    for place, token in enumerate(tokens, start=1):
        fits = operand_expected == (token in DIGITS or token == "(")
        if not fits or token not in TOKENS:
            raise no_expression(tokens, f"token {place}, {shorten(token)!r}")
        operand_expected = token in OPERATORS or token == "("
        if token in DIGITS:
            heads.append(0)
            operands.append((int(token), len(heads)))
        elif token == "(":
            waiting.append((token, 0))
        elif token == ")":
            while waiting and waiting[-1][0] != "(":
                calculate()
            if not waiting:
                raise no_expression(tokens, f"token {place} closes nothing")
            waiting.pop()
        else:
            while waiting and PRECEDENCE.get(waiting[-1][0], 0) >= PRECEDENCE[token]:
                calculate()
            heads.append(0)
            waiting.append((token, len(heads)))
    if operand_expected:
        raise no_expression(tokens, "something is missing at its end")
    while waiting:
        if waiting[-1][0] == "(":
            raise no_expression(tokens, "a bracket is not closed")
        calculate()
    return Expression(tuple(tokens), operands[0][0], tuple(heads))


def generate(count: int, longest: int, seed: int, depth: int = 4, shortest: int = 3, least_depth: int = 1) -> list[Expression]:
    """Random expressions, all different, with no more brackets than they need.

    Args:
        count: how many.
        longest, shortest: the number of tokens that they have at most and at least.
        seed: of the generator.
        depth, least_depth: how many operators lie above each other at most and at least.

    Raises:
        ValueError: a `count` below 0; fewer than `count` such expressions could be found; `longest` less than 3 (an operator
            and two operands) or than `shortest`; `least_depth` less than 1 or above `depth`.
    """
    check_shape(count, longest, shortest, depth, least_depth, least_tokens=3)
    source = random.Random(seed)

    def draw() -> Expression | None:
        operators = source.randint(max(1, (shortest - 1) // 4), (longest - 1) // 2)
        tokens, deepest = _draw(source, operators, depth)
        if not shortest <= len(tokens) <= longest or deepest < least_depth:
            return None
        try:
            return read(tokens)
        except DivisionByZero:
            return None

    return distinct(draw, count)


def _draw(source: random.Random, operators: int, depth: int) -> tuple[list[str], int]:
    """The tokens of a tree that grows from a single digit, of which a random one becomes an operator, again and again."""
    symbols, operands, levels = [source.choice(DIGITS)], {}, [0]  # of each node; its two operands; how many are above it
    digits = [0]
    for _ in range(operators):
        if not digits:
            break
        place = source.randrange(len(digits))
        digits[place], digits[-1] = digits[-1], digits[place]
        node = digits.pop()
        symbols[node] = source.choice(list(OPERATORS))
        operands[node] = (len(symbols), len(symbols) + 1)
        for operand in operands[node]:
            symbols.append(source.choice(DIGITS))
            levels.append(levels[node] + 1)
            if levels[operand] < depth:
                digits.append(operand)
    return _written(symbols, operands), max(levels)


def _written(symbols: list[str], operands: dict[int, tuple[int, int]]) -> list[str]:
    """The tokens of a tree, from left to right."""
    tokens: list[str] = []
    following: list[int | str] = [0]  # nodes and tokens, the last of them first
    while following:
        item = following.pop()
        if isinstance(item, str) or item not in operands:
            tokens.append(item if isinstance(item, str) else symbols[item])
            continue
        own = PRECEDENCE[symbols[item]]
        left, right = operands[item]
        parts = [*_bracketed(left, symbols, own), symbols[item], *_bracketed(right, symbols, own + 1)]
        following += reversed(parts)
    return tokens


def _bracketed(node: int, symbols: list[str], least: int) -> list[int | str]:
    """An operand, in brackets if it binds less than it has to."""
    return ["(", node, ")"] if PRECEDENCE.get(symbols[node], 3) < least else [node]
