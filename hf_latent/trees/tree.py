"""A sentence and its tree."""

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from hf_latent.files import shorten
from hf_latent.trees import drawing
from hf_latent.trees import heads as of_heads


@dataclass(frozen=True)
class Tree:
    """A sentence and the head of each of its words. In a notebook, it shows itself as a picture.

    Attributes:
        words: the sentence.
        heads: for each word 0 (ROOT) or j for the j-th word, as CoNLL-U numbers them.
        weights: how much of the word's head, as the decoder sees it, this one is: 1 where a tree was chosen, less where
            heads are averaged.
        other_arcs: where heads are averaged, the arcs beside the tree's own that have weight: (word from 0, head as above,
            weight).
        offsets: where each word begins and ends in the text that was parsed; not known where words were given. (Not compared.)
        relations: of each word to its head, such as `nsubj`; nothing for a tree without them.

    All of them may be tuples, lists, or arrays of NumPy or PyTorch.

    Raises:
        TypeError: words or relations that are no strings, heads that are no integers, one value in place of several.
        ValueError: heads that form no tree over the words; weights, other arcs, offsets or relations that do not fit it.
    """

    words: tuple[str, ...]
    heads: tuple[int, ...]
    weights: tuple[float, ...] = ()
    other_arcs: tuple[tuple[int, int, float], ...] = ()
    offsets: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    relations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("words", "heads", "weights", "other_arcs", "offsets", "relations"):
            values = _plain(getattr(self, name))
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise TypeError(f"`{name}` must be several values in a tuple or list, got one, {shorten(repr(values))}.")
            object.__setattr__(self, name, tuple(map(_plain, values)))
        count = len(self.words)
        for name in ("words", "relations"):
            for text in getattr(self, name):
                if not isinstance(text, str):
                    raise TypeError(f"`{name}` must be strings, got {shorten(repr(text))}.")
        for head in self.heads:
            if not _is_integer(head):
                raise TypeError(f"`heads` must be integers, got {shorten(repr(head))} in {_shown(self.heads)}.")
        if not all(map(_is_finite, self.weights)):
            raise ValueError(f"`weights` must be finite numbers, got {_shown(self.weights)}.")
        if self.weights and len(self.weights) != count:
            raise ValueError(f"`weights` must be one for each of the {count} words, or none, got {len(self.weights)}.")
        if len(self.heads) != count or not all(0 <= head <= count for head in self.heads):
            raise ValueError(
                f"`heads` must give each of the {count} words a head between 0 (ROOT) and {count}, got {_shown(self.heads)}."
            )
        if not of_heads.is_tree(self.heads):
            raise ValueError(f"`heads` must form a tree, with a way from each word to ROOT, got {_shown(self.heads)}.")
        object.__setattr__(self, "other_arcs", tuple(map(self._other_arc, self.other_arcs)))
        for name in ("offsets", "relations"):
            if getattr(self, name) and len(getattr(self, name)) != count:
                raise ValueError(
                    f"`{name}` must be one for each of the {count} words, or none, got {len(getattr(self, name))}."
                )
        object.__setattr__(self, "offsets", tuple(map(_span, self.offsets)))

    def _other_arc(self, arc: object) -> tuple[int, int, float]:
        count = len(self.words)
        fields: list[Any] = [_plain(field) for field in arc] if isinstance(arc, Sequence) else []
        word, head, weight = fields if len(fields) == 3 else (-1, -1, -1)
        if not (_is_integer(word) and _is_integer(head) and _is_finite(weight) and 0 <= word < count and 0 <= head <= count):
            raise ValueError(
                f"`other_arcs` must be of a word between 0 and {count - 1}, a head between 0 (ROOT) and {count}, and a weight, "
                f"got {shorten(repr(arc))}."
            )
        if head in (word + 1, self.heads[word]):
            raise ValueError(f"`other_arcs` must be beside the tree's own, and of no word to itself, got {arc!r}.")
        return word, head, weight

    @property
    def depths(self) -> list[int]:
        """How many arcs lie between ROOT and each word."""
        return of_heads.depths(self.heads)

    @property
    def is_flat(self) -> bool:
        """Whether all words have the same head: ROOT, or one word that hangs from ROOT."""
        below = {head for head in self.heads if head}
        return not below or (len(below) == 1 and self.heads.count(0) == 1)

    @property
    def is_projective(self) -> bool:
        """Whether no two arcs cross, with ROOT before the first word."""
        return of_heads.is_projective(self.heads)

    def to_text(self) -> str:
        """The tree for a terminal: a line a word, in the order of the sentence, indented by depth.

        Where arcs cross, lines alone cannot tell which head a word hangs from: it is named then.
        """
        return drawing.draw_text(self.words, self.heads, self.weights, self.relations)

    def to_svg(self, gold: "Tree | None" = None) -> str:
        """An arc diagram. With `gold`, arcs that differ are red, and those that should be stand below, dashed.

        Arcs of one head differ in their relations, where both trees have them.
        """
        if gold is not None and gold.words != self.words:
            raise ValueError(f"`gold` must be a tree over the same words, got {shorten(' '.join(gold.words))!r}.")
        gold_heads, gold_relations = (None, ()) if gold is None else (gold.heads, gold.relations)
        return drawing.draw_svg(
            self.words, self.heads, self.weights, self.other_arcs, gold_heads, self.relations, gold_relations
        )

    def to_png(self, path: str | Path, gold: "Tree | None" = None, zoom: float = 2.0) -> None:
        """The same picture as a PNG file. Needs `pip install 'hf_latent[drawing]'`."""
        drawing.write_png(self.to_svg(gold), path, zoom)

    def _repr_html_(self) -> str:
        # As an image, since pages that show notebooks take drawings out of their HTML.
        data = base64.b64encode(self.to_svg().encode()).decode()
        words = escape(drawing.shown(" ".join(self.words), 1000))
        image = f'<img src="data:image/svg+xml;base64,{data}" alt="{words}" style="max-width: none">'
        return f'<div style="overflow-x: auto">{image}</div>'


def _plain(value: Any) -> Any:
    """Numbers and lists of numbers for those of NumPy and PyTorch."""
    return value.tolist() if hasattr(value, "tolist") else value


def _span(offset: object) -> tuple[int, int]:
    fields: list[Any] = [_plain(field) for field in offset] if isinstance(offset, Sequence) else []
    begin, end = fields if len(fields) == 2 else (-1, -1)
    if not (_is_integer(begin) and _is_integer(end) and 0 <= begin <= end):
        raise ValueError(f"`offsets` must be where words begin and end in a text, got {shorten(repr(offset))}.")
    return begin, end


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _shown(values: tuple) -> str:
    return shorten(str(list(values)), 200)
