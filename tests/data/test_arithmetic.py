"""Arithmetic with precedence and brackets: answers, trees, and what is generated."""

import ast
import contextlib

import pytest
import torch

from hf_latent.data.arithmetic import MODULUS, OPERATORS, DivisionByZero, generate, read
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.trees import Tree


def python_heads(text):
    """The tree that Python's own parser gives, as heads of words."""
    places = {}
    for place, character in enumerate(text):
        if character in "+-*/0123456789":
            places[place] = len(places) + 1
    heads = [0] * len(places)

    def place_of(node):
        if isinstance(node, ast.Constant):
            return places[node.col_offset]
        between = range(node.left.end_col_offset, node.right.col_offset)
        own = next(places[place] for place in between if text[place] in "+-*/")
        for operand in (node.left, node.right):
            heads[place_of(operand) - 1] = own
        return own

    place_of(ast.parse(text, mode="eval").body)
    return tuple(heads)


def test_precedence_brackets_and_order():
    assert read(["2", "*", "(", "3", "+", "4", ")", "-", "5"]).heads == (2, 6, 4, 2, 4, 0, 6)
    assert read(["1", "-", "2", "-", "3", "*", "4"]).answer == (1 - 2 - 12) % MODULUS
    assert read(["5", "/", "3"]).answer == 4  # 4 * 3 is 12, 5 modulo 7
    assert read(["6"]).words == ("6",)
    assert read(["(", "(", "6", ")", ")"]).heads == (0,)


def test_trees_are_those_of_another_parser():
    for one in generate(300, longest=40, seed=5, depth=8):
        assert one.heads == python_heads(" ".join(one.tokens))
        if "/" not in one.tokens:
            assert one.answer == eval(" ".join(one.tokens)) % MODULUS


def test_generated_expressions():
    found = generate(400, longest=20, seed=1)
    assert found == generate(400, longest=20, seed=1)
    assert len({one.tokens for one in found}) == 400
    for one in found:
        assert 3 <= len(one.tokens) <= 20
        assert is_tree(torch.tensor([one.heads]), projective=True, single_root=True)
        assert max(Tree(one.words, one.heads).depths) <= 5  # four operators, and a digit
    deep = generate(50, longest=60, shortest=30, depth=7, least_depth=7, seed=1)
    assert {max(Tree(one.words, one.heads).depths) for one in deep} == {8}
    assert min(len(one.tokens) for one in deep) >= 30


def test_each_bracket_is_needed():
    for one in generate(100, longest=20, seed=2):
        tokens = list(one.tokens)
        for place in [place for place, token in enumerate(tokens) if token == "("]:
            open_brackets = 0
            for end in range(place, len(tokens)):
                open_brackets += (tokens[end] == "(") - (tokens[end] == ")")
                if not open_brackets:
                    break
            without = tokens[:place] + tokens[place + 1 : end] + tokens[end + 1 :]
            with contextlib.suppress(DivisionByZero):
                assert read(without).heads != one.heads


def test_order_tells_any_two_operators_of_one_precedence_apart():
    """Otherwise, answers would not tell which tree is right."""
    for pair in (("+", "-"), ("*", "/")):
        differs = False
        for a in range(1, MODULUS):
            for b in range(1, MODULUS):
                for c in range(1, MODULUS):
                    first, second = (OPERATORS[name] for name in reversed(pair))
                    differs |= first(second(a, b), c) != first(a, second(b, c) or 1)
        assert differs


@pytest.mark.parametrize("wrong", ["2 +", "+ 2", "2 3", "( 2", "2 )", "( )", "2 ^ 3", "8", "2 ( 3 )", "12"])
def test_what_is_no_expression(wrong):
    with pytest.raises(ValueError, match="Not an expression"):
        read(wrong.split())
    with pytest.raises(ValueError, match="Not an expression"):
        read([])


def test_what_has_no_answer():
    with pytest.raises(DivisionByZero, match=r"'2 / \( 3 - 3 \)' divides by 0, modulo 7"):
        read(["2", "/", "(", "3", "-", "3", ")"])


def test_expressions_of_great_depth():
    levels = 50_000
    found = read([*("( 1 - " * levels).split(), "1", *[")"] * levels])
    assert found.answer == 1
    assert found.heads[-1] == 2 * levels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "`count` must be an integer, 0 or more, got -1"),
        ({"longest": 2}, "`longest` must be at least 3, .* got 2"),
        ({"depth": 0}, "`depth` at least 1, got 20 and 0"),
        ({"shortest": 30}, "`shortest` must be"),
        ({"least_depth": 5}, "`least_depth` must be"),
        ({"longest": 3, "count": 1000}, "Found 189 different expressions"),  # 4 * 49, less 7 that divide by 0
    ],
)
def test_what_cannot_be_generated(options, message):
    with pytest.raises(ValueError, match=message):
        generate(**{"count": 1, "longest": 20, "seed": 0, **options})
    assert generate(0, longest=3, seed=0) == []
