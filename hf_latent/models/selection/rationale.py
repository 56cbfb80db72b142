"""A text with the words that were chosen in it, to be shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from hf_latent.trees.drawing import shown

# Around a chosen word on a terminal: bold and underlined, and back.
BEGIN, END = "\x1b[1;4m", "\x1b[0m"
LONGEST_TEXT = 100_000


@dataclass(frozen=True)
class Rationale:
    """A text and the words in it that a model decided by.

    Attributes:
        text: the whole.
        spans: where the chosen words begin and end in it, in their order.
        weights: how much of each was seen, above 0 and at most 1.

    Raises:
        ValueError: spans that are not in the text, or not one after another; not a weight for each.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        bounds = [place for span in self.spans for place in span]
        if bounds != sorted(bounds) or (bounds and not 0 <= bounds[0] <= bounds[-1] <= len(self.text)):
            raise ValueError(
                f"`spans` must lie in the text of {len(self.text)} characters, one after another, got {self.spans!r:.200}."
            )
        if len(self.weights) != len(self.spans):
            raise ValueError(f"`weights` must be one for each of the {len(self.spans)} spans, got {len(self.weights)}.")

    def to_text(self, begin: str = BEGIN, end: str = END) -> str:
        """The text for a terminal, with the chosen words in bold and underlined; or with other marks around them.

        >>> Rationale("a fun film", ((2, 5),), (1.0,)).to_text("[", "]")
        'a [fun] film'
        """
        return "".join(f"{begin}{part}{end}" if weight else part for part, weight in self._parts())

    def to_html(self) -> str:
        """The text as HTML, with the chosen words in `<mark>`, paler where less of them was seen."""
        marks = [
            f'<mark style="background: rgba(255, 213, 79, {weight:.2f})">{escape(part)}</mark>' if weight else escape(part)
            for part, weight in self._parts()
        ]
        return f"<p>{''.join(marks)}</p>"

    def _repr_html_(self) -> str:
        return self.to_html()

    def _parts(self) -> list[tuple[str, float]]:
        """The stretches of the text, each with its weight: 0 outside of the chosen words."""
        parts: list[tuple[str, float]] = []
        before = 0
        for (begin, end), weight in zip(self.spans, self.weights, strict=True):
            parts += [(self.text[before:begin], 0.0), (self.text[begin:end], weight)]
            before = end
        parts.append((self.text[before:], 0.0))
        return [(_shown(part), weight) for part, weight in parts if part]


def _shown(part: str) -> str:
    """As it is, with its lines; without what a terminal would obey."""
    return "\n".join(shown(line.replace("\t", " "), LONGEST_TEXT) for line in part.split("\n"))


def of_words(words: Sequence[str], offsets: Sequence[Sequence[int]], text: str | None) -> tuple[str, list[tuple[int, int]]]:
    """A text and where its words are in it; where words alone are known, the text that they make with blanks."""
    if text is not None:
        return text, [(begin, end) for begin, end in offsets]
    spans, begin = [], 0
    for word in words:
        spans.append((begin, begin + len(word)))
        begin += len(word) + 1
    return " ".join(words), spans


__all__ = ["Rationale"]
