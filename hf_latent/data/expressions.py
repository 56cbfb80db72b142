"""Expressions whose answers need their trees."""

from collections.abc import Callable
from dataclasses import dataclass

from hf_latent.files import shorten

# What groups words, and is none itself.
BRACKETS = ("]", "(", ")")
# After so many draws without a new expression, there are hardly any more.
MOST_DRAWS = 100_000


@dataclass(frozen=True)
class Expression:
    """`[MAX 2 9 [MIN 4 7 ] 0 ]` or `2 * ( 3 + 4 )`, token by token, its answer, and its tree.

    Operands hang from their operator, and the outermost operator from ROOT. The words of the tree are operators and digits;
    brackets that are nothing else are its punctuation. As CoNLL-U numbers heads: 0 for ROOT, j for the j-th word.
    """

    tokens: tuple[str, ...]
    answer: int
    heads: tuple[int, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The tokens that are words."""
        return tuple(token for token in self.tokens if token not in BRACKETS)


def no_expression(tokens: list[str], why: str) -> ValueError:
    return ValueError(f"Not an expression: {shorten(' '.join(tokens), 200)!r} ({why}).")


def check_shape(count: int, longest: int, shortest: int, depth: int, least_depth: int, least_tokens: int) -> None:
    """
    Raises:
        ValueError: a `count` below 0; `longest` below `least_tokens` or `shortest`; `least_depth` below 1 or above `depth`.
    """
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"`count` must be an integer, 0 or more, got {count!r}.")
    if longest < least_tokens or depth < 1:
        raise ValueError(f"`longest` must be at least {least_tokens}, and `depth` at least 1, got {longest} and {depth}.")
    if shortest > longest:
        raise ValueError(f"`shortest` must be at most `longest`, got {shortest} and {longest}.")
    if not 1 <= least_depth <= depth:
        raise ValueError(f"`least_depth` must be from 1 to `depth`, got {least_depth} and {depth}.")


def distinct(draw: Callable[[], Expression | None], count: int) -> list[Expression]:
    """`count` different expressions of those that `draw` gives, which may be None, for one that does not fit.

    Raises:
        ValueError: `MOST_DRAWS` draws have brought nothing new.
    """
    found: dict[Expression, None] = {}
    in_vain = 0
    while len(found) < count:
        drawn = draw()
        in_vain = in_vain + 1 if drawn is None or drawn in found else 0
        if drawn is not None:
            found[drawn] = None
        if in_vain == MOST_DRAWS:
            raise ValueError(
                f"Found {len(found)} different expressions of such a shape, and hardly any more are there; `count` is {count}. "
                "Ask for fewer, or for a larger `longest`."
            )
    return list(found)
