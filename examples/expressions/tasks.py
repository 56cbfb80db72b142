"""What is calculated: list operations, or arithmetic with precedence and brackets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hf_latent.data import arithmetic, listops
from hf_latent.data.expressions import BRACKETS, Expression

Shape = dict[str, Any]  # arguments of `generate`


@dataclass(frozen=True)
class Task:
    """A language of expressions, and which of them are learned from and tested on.

    Attributes:
        name: of the task, and of the folder of its results.
        generate: `(count, longest, seed, **shape)` -> expressions.
        tokens: the vocabulary; operators are its first tokens, digits its last.
        kinds: what the parser sees of each token.
        operators: how many tokens are operators.
        digits: how many are digits.
        sides: whether the order of operands counts; see `Calculator`.
        depth: how many operators lie above each other in training at most.
        tests: their names, how many expressions, and of which shape. Of each, a model has seen none.
        read_file: from the path of a file of this task to its expressions.
    """

    name: str
    generate: Callable[..., list[Expression]]
    tokens: Sequence[str]
    kinds: list[int]
    operators: int
    digits: int
    sides: int
    depth: int
    tests: dict[str, tuple[int, Shape]] = field(repr=False)
    read_file: Callable[[Path], list[Expression]] | None = None

    @property
    def brackets(self) -> list[int]:
        """Tokens that are no words."""
        return [place for place, token in enumerate(self.tokens) if token in BRACKETS]

    @property
    def first_digit(self) -> int:
        return len(self.tokens) - self.digits


LONGEST = 20  # tokens, in training
LIST_OPERATORS = ("[MAX", "[MIN", "[MED", "[SM")


def known_lists(path: Path) -> list[Expression]:
    """Those of a file of ListOps that have none but the operators that are learned."""
    unknown = set(listops.OPERATORS) - set(LIST_OPERATORS)
    return [one for one in listops.read_file(path) if not unknown & set(one.tokens)]


def kinds_of(tokens: Sequence[str], *kinds: Sequence[str]) -> list[int]:
    """The kind of each token; the last kind has all that are in no other."""
    return [next((place for place, kind in enumerate(kinds) if token in kind), len(kinds)) for token in tokens]


LISTOPS = Task(
    "listops",
    partial(listops.generate, operators=LIST_OPERATORS),
    listops.TOKENS,
    kinds_of(listops.TOKENS, list(listops.OPERATORS), ["]"]),
    operators=len(listops.OPERATORS),
    digits=10,
    sides=1,
    depth=3,
    tests={
        "up to 20 tokens": (1000, {"longest": LONGEST}),
        "21 to 40, depth 3": (500, {"shortest": 21, "longest": 40, "least_depth": 3}),
        "21 to 40, depth 5": (500, {"shortest": 21, "longest": 40, "depth": 5, "least_depth": 5}),
        "80 to 100": (500, {"shortest": 80, "longest": 100, "depth": 8, "least_depth": 5}),
        "160 to 200": (250, {"shortest": 160, "longest": 200, "depth": 10, "least_depth": 6}),
        "5 to 8 operands": (500, {"longest": 60, "operands": (5, 8)}),
    },
    read_file=known_lists,
)

ARITHMETIC = Task(
    "arithmetic",
    arithmetic.generate,
    arithmetic.TOKENS,
    kinds_of(arithmetic.TOKENS, "+-", "*/", "(", ")"),
    operators=len(arithmetic.OPERATORS),
    digits=arithmetic.MODULUS,
    sides=2,
    depth=4,
    tests={
        "up to 20 tokens": (1000, {"longest": LONGEST}),
        **{f"depth {depth}": (500, {"longest": 60, "depth": depth, "least_depth": depth}) for depth in (5, 6, 7, 8)},
        "80 to 100": (500, {"shortest": 80, "longest": 100, "depth": 10, "least_depth": 5}),
        "160 to 200": (250, {"shortest": 160, "longest": 200, "depth": 14, "least_depth": 6}),
    },
)
TASKS = {task.name: task for task in (LISTOPS, ARITHMETIC)}
