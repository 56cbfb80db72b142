"""A sentence and its tree."""

import base64
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import torch

from hf_latent.inference.enumeration import is_tree
from hf_latent.trees import drawing


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
    """

    words: tuple[str, ...]
    heads: tuple[int, ...]
    weights: tuple[float, ...] = ()
    other_arcs: tuple[tuple[int, int, float], ...] = ()
    offsets: tuple[tuple[int, int], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in ("words", "heads", "weights", "other_arcs", "offsets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        count = len(self.words)
        if any(isinstance(head, bool) or not isinstance(head, int) for head in self.heads):
            raise TypeError(f"`heads` must be integers, got {list(self.heads)}.")
        if self.weights and len(self.weights) != count:
            raise ValueError(f"`weights` must be one for each of the {count} words, or none, got {len(self.weights)}.")
        if len(self.heads) != count or not all(0 <= head <= count for head in self.heads):
            raise ValueError(
                f"`heads` must give each of the {count} words a head between 0 (ROOT) and {count}, got {list(self.heads)}."
            )
        if not is_tree(torch.tensor([self.heads]).view(1, count)):
            raise ValueError(f"`heads` must form a tree, with a way from each word to ROOT, got {list(self.heads)}.")

    @property
    def depths(self) -> list[int]:
        """How many arcs lie between ROOT and each word."""
        depths = [0] * len(self.words)
        for place in range(len(self.words)):
            word = place + 1
            while word:
                depths[place] += 1
                word = self.heads[word - 1]
        return depths

    @property
    def is_flat(self) -> bool:
        """Whether all words have the same head: ROOT, or one word that hangs from ROOT."""
        below = {head for head in self.heads if head}
        return not below or (len(below) == 1 and self.heads.count(0) == 1)

    @property
    def is_projective(self) -> bool:
        """Whether no two arcs cross, with ROOT before the first word."""
        return bool(is_tree(torch.tensor([self.heads]).view(1, len(self.words)), projective=True))

    def to_text(self) -> str:
        """The tree for a terminal: a line a word, in the order of the sentence, indented by depth.

        Where arcs cross, lines alone cannot tell which head a word hangs from: it is named then.
        """
        return drawing.draw_text(self)

    def to_svg(self, gold: "Tree | None" = None) -> str:
        """An arc diagram. With `gold`, arcs that differ are red, and those that should be stand below, dashed."""
        return drawing.draw_svg(self, gold)

    def to_png(self, path: str | Path, gold: "Tree | None" = None, zoom: float = 2.0) -> None:
        """The same picture as a PNG file. Needs `pip install 'hf_latent[drawing]'`."""
        drawing.write_png(self.to_svg(gold), path, zoom)

    def _repr_html_(self) -> str:
        # As an image, since pages that show notebooks take drawings out of their HTML.
        data = base64.b64encode(self.to_svg().encode()).decode()
        image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(" ".join(self.words))}" style="max-width: none">'
        return f'<div style="overflow-x: auto">{image}</div>'
