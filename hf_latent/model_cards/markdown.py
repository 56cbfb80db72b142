"""Names and sentences in Markdown, where nothing in them is markup."""

import json
import re
from collections.abc import Mapping

from hf_latent.files import shorten
from hf_latent.trees.drawing import shown

# A name and a sentence that are longer are cut, in characters.
LONGEST_NAME, LONGEST_EXAMPLE = 200, 1000


def as_text(text: str, longest: int = LONGEST_NAME) -> str:
    """Text in a line of Markdown, a table, or the description of a picture, where no sign of it is markup."""
    return re.sub(r"[\\`*\[\]<>&|~#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", shown(" ".join(text.split()), longest))


def as_code(text: str) -> str:
    """Text as code in a cell of a table: between more backticks than stand together in it."""
    text = shown(text, LONGEST_NAME).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def as_string(text: str, longest: int = LONGEST_NAME) -> str:
    """Text as a string of Python, in double quotes, where nothing is hidden."""
    quoted = json.dumps(shorten(text, longest), ensure_ascii=False)
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in quoted)


def as_table(rows: Mapping[str, str]) -> str:
    """A table of two columns, from cells in Markdown."""
    return "\n".join(["| | |", "|:--|:--|", *[f"| {key} | {value} |" for key, value in rows.items()]])
