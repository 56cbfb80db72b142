"""What a tree is to a person: words and their heads, drawn, compared and counted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_latent.inference.enumeration import is_tree
from hf_latent.structures.conversions import heads_from_arcs


@dataclass(frozen=True)
class Tree:
    """A sentence and the head of each of its words.

    Attributes:
        words: the sentence.
        heads: for each word 0 (ROOT) or j for the j-th word, as CoNLL-U numbers them.
        weights: how much of the word's head, as the decoder sees it, this one is: 1 where a tree was chosen, less where
            heads are averaged.
    """

    words: tuple[str, ...]
    heads: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.words)
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

    def to_text(self) -> str:
        """The tree for a terminal: a line a word, in the order of the sentence, indented by depth."""
        return _draw_text(self)

    def to_svg(self, gold: "Tree | None" = None) -> str:
        """An arc diagram. With `gold`, arcs that differ are red, and those that should be stand below, dashed."""
        return _draw_svg(self, gold)


def parse(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], batch_size: int = 32) -> list[Tree]:
    """The latent trees of some texts, by a latent-tree model and its (fast) tokenizer.

    Where the decoder sees averages, this is the highest-scoring tree, each arc with its weight in the average.

    Raises:
        ValueError: a model without a tree (`estimator=None`).
    """
    if model.config.estimator is None:
        raise ValueError("This model was trained with `estimator=None`: it has no latent tree to show.")
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be a list of strings, got one string: pass [{texts!r}].")
    texts = list(texts)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(
            f"`texts` must be a list of strings, got {next(text for text in texts if not isinstance(text, str))!r}."
        )
    was_training = model.training
    model.eval()
    trees = []
    with torch.no_grad():
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            encoded = tokenizer(batch, padding=True, truncation=True, return_tensors="pt", return_offsets_mapping=True)
            offsets = encoded.pop("offset_mapping")
            encoded = encoded.to(model.device)
            word_ids = model.base_model.find_words(encoded["input_ids"], encoded["attention_mask"]).cpu()
            output = model(**encoded, word_ids=word_ids.to(model.device))
            heads = heads_from_arcs(model.base_model.tree.structure.argmax(output.arc_scores, output.num_words))
            rows = zip(batch, offsets, word_ids, heads.cpu(), output.arcs.float().cpu(), strict=True)
            trees += [_tree_of_row(*row) for row in rows]
    model.train(was_training)
    return trees


def _tree_of_row(text: str, offsets: Tensor, word_ids: Tensor, heads: Tensor, arcs: Tensor) -> Tree:
    """The tree over `text` from the span and the word of each token, and the heads and arcs of each word."""
    count = int(word_ids.max()) + 1 if len(word_ids) else 0
    words = []
    for word in range(count):
        spans = offsets[word_ids == word]
        words.append(text[int(spans[:, 0].min()) : int(spans[:, 1].max())].strip())
    weights = arcs[:count].gather(1, heads[:count, None])[:, 0]
    return Tree(tuple(words), tuple(heads[:count].tolist()), tuple(weights.tolist()))


def attachment_score(predicted: Sequence[Tree], gold: Sequence[Tree]) -> float:
    """The share of all words whose head is the gold one (unlabelled attachment score)."""
    pairs = [pair for p, g in zip(predicted, gold, strict=True) for pair in zip(p.heads, g.heads, strict=True)]
    if not pairs:
        raise ValueError("`gold` has no words, so that there is nothing to score.")
    return sum(ours == theirs for ours, theirs in pairs) / len(pairs)


# --- Text: each line is drawn into cells that know which of their four sides a line leaves through.

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = dict(zip(range(16), " ╵╷│╴╯╮┤╶╰╭├─┴┬┼", strict=True))


def _draw_text(tree: Tree) -> str:
    depths = tree.depths
    width = 3 * (max(depths, default=0) + 1)
    cells = [[0] * width for _ in range(len(tree.words) + 1)]
    for row, (head, depth) in enumerate(zip(tree.heads, depths, strict=True), start=1):
        column = 3 * (depth - 1)
        for line in range(min(row, head), max(row, head) + 1):
            cells[line][column] |= (_UP if line > min(row, head) else 0) | (_DOWN if line < max(row, head) else 0)
        cells[row][column] |= _RIGHT
        for between in range(column + 1, column + 3):
            cells[row][between] |= _LEFT | _RIGHT
        cells[row][column + 3] |= _LEFT
    lines = ["ROOT"]
    for row, (word, depth) in enumerate(zip(tree.words, depths, strict=True), start=1):
        drawn = "".join(_LINES[cell] for cell in cells[row])[: 3 * depth + 1]
        drawn = drawn[:-1] + "─" if drawn.endswith("╴") else drawn
        weight = f"  ({tree.weights[row - 1]:.2f})" if tree.weights and tree.weights[row - 1] < 0.995 else ""
        lines.append(f"{drawn} {word}{weight}")
    return "\n".join(lines)


# --- SVG: arcs as half ellipses over the words, the longer the higher.

_CHARACTER, _GAP, _LEVEL = 8.5, 22.0, 24.0
_COLOURS = {"right": "#2563eb", "wrong": "#dc2626", "missed": "#6b7280"}


def _draw_svg(tree: Tree, gold: Tree | None) -> str:
    if gold is not None and gold.words != tree.words:
        raise ValueError(f"`gold` must be a tree over the same words, got {' '.join(gold.words)!r}.")
    centres, left = [], _GAP / 2
    for word in tree.words:
        width = max(len(word), 1) * _CHARACTER
        centres.append(left + width / 2)
        left += width + _GAP
    same = [gold is None or head == gold.heads[place] for place, head in enumerate(tree.heads)]
    above = _arc_levels(tree, [True] * len(tree.heads))
    below = _arc_levels(gold, [not right for right in same]) if gold is not None else {}
    top = (max(above.values(), default=0) + 1.6) * _LEVEL
    bottom = (max(below.values()) + 1.2) * _LEVEL if below else 8
    parts = []
    for place, level in above.items():
        colour = _COLOURS["right" if same[place] else "wrong"]
        weight = tree.weights[place] if tree.weights else 1.0
        parts += _arc(tree.heads[place], place, centres, top, -level * _LEVEL, colour, weight)
    for place, level in below.items():
        assert gold is not None
        parts += _arc(gold.heads[place], place, centres, top + 22, level * _LEVEL, _COLOURS["missed"], 1.0, True)
    for word, centre in zip(tree.words, centres, strict=True):
        parts.append(f'<text x="{centre:.1f}" y="{top + 16:.1f}" text-anchor="middle">{escape(word)}</text>')
    size = f'width="{max(left, 40):.0f}" height="{top + 22 + bottom:.0f}"'
    view = f'viewBox="0 0 {max(left, 40):.0f} {top + 22 + bottom:.0f}"'
    style = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:14px"
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} style="{style}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _arc_levels(tree: Tree, wanted: list[bool]) -> dict[int, int]:
    """How high each arc goes (by its dependent): above all shorter arcs with which it shares a stretch of the sentence."""
    spans = {
        place: (min(head - 1, place), max(head - 1, place)) for place, head in enumerate(tree.heads) if head and wanted[place]
    }
    levels: dict[int, int] = {}
    for place, (start, end) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        under = [levels[other] for other in levels if spans[other][0] < end and start < spans[other][1]]
        levels[place] = 1 + max(under, default=0)
    highest = max(levels.values(), default=0)
    roots = {place: highest + 1 for place, head in enumerate(tree.heads) if not head and wanted[place]}
    return levels | roots


def _arc(
    head: int,
    place: int,
    centres: list[float],
    base: float,
    rise: float,
    colour: str,
    weight: float,
    dashed: bool = False,
) -> list[str]:
    """An arc from head to dependent with its arrow; from ROOT, a straight line from the edge of the picture."""
    end = centres[place]
    sign = -1 if rise < 0 else 1
    if head == 0:
        path = f"M {end:.1f} {base + rise:.1f} L {end:.1f} {base:.1f}"
    else:
        start = centres[head - 1]
        start += 5 if end > start else -5  # beside the arrow of the head's own arc
        high = base + 1.3 * rise
        path = f"M {start:.1f} {base:.1f} C {start:.1f} {high:.1f} {end:.1f} {high:.1f} {end:.1f} {base:.1f}"
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    opacity = f'stroke-opacity="{0.25 + 0.75 * weight:.2f}"'
    tip = f"{end:.1f},{base:.1f} {end - 3.5:.1f},{base + sign * 7:.1f} {end + 3.5:.1f},{base + sign * 7:.1f}"
    parts = [
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5" {opacity}{dash}/>',
        f'<polygon points="{tip}" fill="{colour}"/>',
    ]
    if head == 0:
        y = base + rise + (-3 if sign < 0 else 11)
        parts.append(f'<text x="{end:.1f}" y="{y:.1f}" text-anchor="middle" font-size="10" fill="{colour}">root</text>')
    return parts
