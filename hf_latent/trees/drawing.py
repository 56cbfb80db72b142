"""Trees as text for a terminal, and as arc diagrams."""

import re
import unicodedata
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from hf_latent.files import shorten, write_file
from hf_latent.trees import heads as of_heads

# --- Words as they can be shown.

# Longer ones would push all others out of sight.
LONGEST_WORD = 80
# What a terminal would obey, what would break a line or turn the order of what follows, and what XML cannot hold. (Joiners and
# marks stay, which some scripts are not written without.)
_NOT_SHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def shown(text: str, longest: int = LONGEST_WORD) -> str:
    """Text of at most so many characters and a single line, safe for a terminal and, once escaped, for XML."""
    return _NOT_SHOWN.sub("\N{REPLACEMENT CHARACTER}", shorten(text, longest))


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes: two for a Chinese character, none for an accent that stands by itself."""
    return sum(
        2 if unicodedata.east_asian_width(character) in "WF" else unicodedata.category(character) not in ("Mn", "Me", "Cf")
        for character in text
    )


# --- Text: each line is drawn into cells that know which of their four sides a line leaves through.

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = dict(zip(range(16), " ╵╷│╴╯╮┤╶╰╭├─┴┬┼", strict=True))


# Deeper words are drawn there, and their heads named: otherwise a chain of words would be as wide as it is long.
_DEEPEST = 50


def draw_text(words: Sequence[str], heads: Sequence[int], weights: Sequence[float] = (), relations: Sequence[str] = ()) -> str:
    """A tree for a terminal: a line a word, in the order of the sentence, indented by depth.

    Args:
        heads: for each word 0 (ROOT) or j for the j-th word; they must form a tree.
        weights: of the arcs to the heads, shown where an arc is not certain.
        relations: of the words to their heads, in brackets behind the words.
    """
    depths = [min(depth, _DEEPEST + 1) for depth in of_heads.depths(heads)]
    cells = np.zeros((len(words) + 1, 3 * (max(depths, default=0) + 1)), dtype=np.uint8)
    first, last = list(range(len(cells))), list(range(len(cells)))  # of the lines that a head's vertical line goes through
    for row, head in enumerate(heads, start=1):
        first[head], last[head] = min(first[head], row), max(last[head], row)
    for head, depth in enumerate([0, *depths]):
        if first[head] < last[head] and depth <= _DEEPEST:
            cells[first[head] : last[head], 3 * depth] |= _DOWN
            cells[first[head] + 1 : last[head] + 1, 3 * depth] |= _UP
    for row, depth in enumerate(depths, start=1):
        column = 3 * (depth - 1)
        cells[row, column] |= _RIGHT
        cells[row, column + 1 : column + 3] |= _LEFT | _RIGHT
        cells[row, column + 3] |= _LEFT
    words = [shown(word) for word in words]
    names = ["ROOT", *(f"{word} ({place})" for place, word in enumerate(words, start=1))]
    projective = of_heads.is_projective(heads)
    lines = ["ROOT"]
    for row, (word, depth, head) in enumerate(zip(words, depths, heads, strict=True), start=1):
        drawn = "".join(_LINES[cell] for cell in cells[row, : 3 * depth + 1].tolist())
        drawn = drawn[:-1] + "─" if drawn.endswith("╴") else drawn
        weight = f"  ({weights[row - 1]:.2f})" if weights and weights[row - 1] < CERTAIN else ""
        named = f"  <- {names[head]}" if depth > _DEEPEST or not projective else ""
        relation = f" [{shown(relations[row - 1])}]" if relations else ""
        lines.append(f"{drawn} {word}{relation}{weight}{named}")
    return "\n".join(lines)


# --- SVG: arcs over the words, the longer the higher.

_CHARACTER, _GAP, _LEVEL = 8.5, 20.0, 22.0
_SMALL_CHARACTER = 6.0  # of what is written on arcs
_COLOURS = {"right": "#2563eb", "wrong": "#dc2626", "missed": "#6b7280"}
# From this weight on, an arc is drawn as one that was chosen.
CERTAIN = 0.995

# (word from 0, head as in CoNLL-U)
_Arc = tuple[int, int]


def draw_svg(
    words: Sequence[str],
    heads: Sequence[int],
    weights: Sequence[float] = (),
    other_arcs: Sequence[tuple[int, int, float]] = (),
    gold: Sequence[int] | None = None,
    relations: Sequence[str] = (),
    gold_relations: Sequence[str] = (),
) -> str:
    """An arc diagram; arcs are the fainter, the less weight they have.

    Args:
        heads: for each word 0 (ROOT) or j for the j-th word.
        weights: of the arcs to the heads; by default 1.
        other_arcs: (word from 0, head as above, weight) of arcs beside those.
        gold: the heads that the words should have: arcs that differ are red, and missed ones stand below, dashed.
        relations: of the words to their heads, written on the arcs in place of weights.
        gold_relations: those that the words should have: where both are given, an arc differs as well if its relation does.
    """
    words, relations, gold_relations = ([shown(text) for text in texts] for texts in (words, relations, gold_relations))
    centres, width = _centres(words, relations)
    weight_of = dict(zip(enumerate(heads), weights or [1.0] * len(words), strict=True))
    weight_of |= {(word, head): weight for word, head, weight in other_arcs}
    compared = relations and gold_relations
    wrong = set() if gold is None else {word for word, head in enumerate(gold) if heads[word] != head}
    wrong |= {word for word, relation in enumerate(gold_relations) if relation != relations[word]} if compared else set()
    missed = [] if gold is None else [(word, gold[word]) for word in sorted(wrong)]
    label_of = {arc: _weight_label(arc, weight) for arc, weight in weight_of.items()}
    label_of |= dict(zip(enumerate(heads), relations, strict=False))
    above, below = _levels(list(weight_of), len(words)), _levels(missed, len(words))
    top = (max(above.values(), default=0) + 1.6) * _LEVEL
    bottom = (max(below.values()) + 1.2) * _LEVEL if below else 8
    parts = []
    for arc, level in sorted(above.items(), key=lambda item: weight_of[item[0]]):
        is_wrong = gold is not None and (gold[arc[0]] != arc[1] or arc[0] in wrong)
        colour = _COLOURS["wrong" if is_wrong else "right"]
        parts += _arc(arc, centres, top, -level * _LEVEL, colour, weight_of[arc], label_of[arc])
    for arc, level in below.items():
        label = gold_relations[arc[0]] if gold_relations else _weight_label(arc, 1.0)
        parts += _arc(arc, centres, top + 22, level * _LEVEL, _COLOURS["missed"], 1.0, label, dashed=True)
    for word, centre in zip(words, centres, strict=True):
        parts.append(f'<text x="{centre:.1f}" y="{top + 16:.1f}" text-anchor="middle">{escape(word)}</text>')
    size = f'width="{width:.0f}" height="{top + 22 + bottom:.0f}"'
    view = f'viewBox="0 0 {width:.0f} {top + 22 + bottom:.0f}"'
    style = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:14px"
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} style="{style}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _centres(words: Sequence[str], relations: Sequence[str]) -> tuple[list[float], float]:
    """Where the middle of each word stands, with room for it and its relation, and the width of the picture."""
    centres, left = [], _GAP / 2
    for place, word in enumerate(words):
        width = max(_columns(word), 1) * _CHARACTER
        width = max(width, _columns(relations[place]) * _SMALL_CHARACTER) if relations else width
        centres.append(left + width / 2)
        left += width + _GAP
    return centres, max(left, 40)


def side_by_side(rows: Sequence[Sequence[str]], titles: Sequence[str], names: Sequence[str] | None = None) -> str:
    """One SVG picture of several: rows of SVG pictures, under a title for each column, beside a name for each row, if given.

    Raises:
        ValueError: a row with another number of pictures than there are titles; another number of names than of rows; a picture
            without its size.
    """
    names = [""] * len(rows) if names is None else [shown(name) for name in names]
    titles = [shown(title) for title in titles]
    if len(names) != len(rows):
        raise ValueError(f"`names` must have one for each of the {len(rows)} `rows`, got {len(names)}.")
    for row in rows:
        if len(row) != len(titles):
            raise ValueError(f"Each of the `rows` must have a picture for each of the {len(titles)} `titles`, got {len(row)}.")
    sizes = []
    for row in rows:
        found = [_size(picture) for picture in row]
        if None in found:
            raise ValueError(f"`rows` must hold SVG pictures as `to_svg` makes them, got {shorten(row[found.index(None)])!r}.")
        sizes.append([size for size in found if size])
    title_widths = [_columns(title) * _CHARACTER for title in titles]
    widths = [max([*(row[place][0] for row in sizes), title_widths[place]]) + 30 for place in range(len(titles))]
    margin = 15 + max([_columns(name) * _CHARACTER + 15 for name in names if name], default=0)
    lefts = [margin + sum(widths[:place]) for place in range(len(titles))]
    parts, top = [], 40.0 if any(titles) else 16.0
    font = 'font-family="DejaVu Sans,sans-serif" font-size="15" fill="#374151"'
    for left, title in zip(lefts, titles, strict=True):
        parts.append(f'<text x="{left:.0f}" y="24" {font}>{escape(title)}</text>')
    for name, row, row_sizes in zip(names, rows, sizes, strict=True):
        bottom = top + max((height for _, height in row_sizes), default=0)
        parts.append(f'<text x="15" y="{bottom - 12:.0f}" {font}>{escape(name)}</text>')
        for left, picture, (_, height) in zip(lefts, row, row_sizes, strict=True):
            y = bottom - height  # the words of a row stand in one line
            parts.append(picture.replace("<svg ", f'<svg x="{left:.0f}" y="{y:.0f}" ', 1))
        top = bottom + 24
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{sum(widths) + margin:.0f}" height="{top:.0f}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _size(svg: str) -> tuple[float, float] | None:
    found = re.search(r'<svg [^>]*?\bwidth="([0-9]+(?:\.[0-9]+)?)"[^>]*?\bheight="([0-9]+(?:\.[0-9]+)?)"', svg)
    return None if found is None else (float(found[1]), float(found[2]))


# More would take gigabytes.
_MOST_PIXELS = 2**28


def write_png(svg: str, path: str | Path, zoom: float) -> None:
    """An SVG picture as a PNG file, `zoom` times as large.

    Raises:
        ImportError: resvg-py is not installed.
        ValueError: a zoom that is not between 0 and 100, a picture that would be too large, or one that is no SVG.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise ImportError("Pictures in PNG need resvg-py: pip install 'hf_latent[drawing]'. `to_svg` needs nothing.") from None
    if not 0 < zoom < 100:
        raise ValueError(f"`zoom` must lie between 0 and 100, got {zoom!r}.")
    width, height = _size(svg) or (0, 0)
    if width * height * zoom**2 > _MOST_PIXELS:
        raise ValueError(
            f"A picture of {width:.0f} x {height:.0f} is too large for a PNG file at `zoom` {zoom}, which can have "
            f"{_MOST_PIXELS} pixels. Pass a smaller `zoom`, or keep it as SVG."
        )
    try:
        picture = bytes(svg_to_bytes(svg_string=svg, dpi=96, zoom=zoom))
    except ValueError as error:
        raise ValueError(f"`svg` cannot be drawn at `zoom` {zoom}: {error}; it begins with {shorten(svg)!r}.") from None
    write_file(path, picture)


def _levels(arcs: list[_Arc], count: int) -> dict[_Arc, int]:
    """How high each arc goes: above all shorter ones with which it shares a stretch of the sentence; from ROOT, above all."""
    spans = {(word, head): (min(head - 1, word), max(head - 1, word)) for word, head in arcs if head}
    levels: dict[_Arc, int] = {}
    heights = np.zeros(count, dtype=np.int64)  # how high it is built up between each word and the next
    for arc, (start, end) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        levels[arc] = 1 + int(heights[start:end].max())
        heights[start:end] = levels[arc]
    highest = max(levels.values(), default=0)
    return levels | {(word, head): highest + 1 for word, head in arcs if not head}


def _arc(
    arc: _Arc,
    centres: list[float],
    base: float,
    rise: float,
    colour: str,
    weight: float,
    label: str,
    dashed: bool = False,
) -> list[str]:
    """An arc from head to dependent with its arrow; from ROOT, a straight line from the edge of the picture."""
    word, head = arc
    end = centres[word]
    sign = -1 if rise < 0 else 1
    middle = end
    if head == 0:
        path = f"M {end:.1f} {base + rise:.1f} L {end:.1f} {base:.1f}"
    else:
        start = centres[head - 1]
        start += 5 if end > start else -5  # beside the arrow of the head's own arc
        high = base + 1.3 * rise
        middle = (start + end) / 2
        path = f"M {start:.1f} {base:.1f} C {start:.1f} {high:.1f} {end:.1f} {high:.1f} {end:.1f} {base:.1f}"
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    opacity = f"{0.15 + 0.85 * weight:.2f}"
    tip = f"{end:.1f},{base:.1f} {end - 3.5:.1f},{base + sign * 7:.1f} {end + 3.5:.1f},{base + sign * 7:.1f}"
    parts = [
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-opacity="{opacity}"{dash}/>',
        f'<polygon points="{tip}" fill="{colour}" fill-opacity="{opacity}"/>',
    ]
    if label:
        y = base + (rise if head == 0 else 0.975 * rise) + (-3 if sign < 0 else 11)
        parts.append(
            f'<text x="{middle:.1f}" y="{y:.1f}" text-anchor="middle" font-size="10" fill="{colour}">{escape(label)}</text>'
        )
    return parts


def _weight_label(arc: _Arc, weight: float) -> str:
    """What is written on an arc without a relation."""
    if weight >= CERTAIN:
        return "" if arc[1] else "root"
    return f"{weight:.2f}".lstrip("0")
