"""Which sequences of labels are spans: read off the names of the labels, such as `B-PER` and `I-PER`."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hf_latent.inference.checks import check_choice
from hf_latent.layers.conditional_random_field import ConditionalRandomField, TagConstraints

Kind = Literal["BIO", "IOB1", "BIOES"]
KINDS: tuple[Kind, ...] = ("BIO", "IOB1", "BIOES")

# What the letters mean: those of BILOU and BMES are other names for those of BIOES.
ROLES = {"B": "begin", "I": "inside", "M": "inside", "E": "end", "L": "end", "S": "single", "U": "single"}
LABEL = re.compile(r"([A-Za-z])(?:[-_:./ ](.+))?")


class Span(NamedTuple):
    """Words `start` to `end` (exclusive) of a sentence, of one type."""

    type: str
    start: int
    end: int


class SpanScheme:
    """A way to write spans as a label for each word.

    ```python
    scheme = SpanScheme(model.config.id2label)
    decoder = scheme.decoder()                             # no training: the best sequence that is valid
    tags = decoder.decode(logits, mask)                    # with marginals, k best, samples beside it
    spans = [scheme.spans(own) for own in tags]
    ```

    - `BIO` (IOB2): a span begins with B, and goes on with I of its type.
    - `IOB1`: a span is written with I; its first word has B where a span of the same type ends just before.
    - `BIOES` (BILOU, BMES): B, any number of I, E; or S alone.

    Args:
        id2label: the name of each label: `O` outside of all spans, or a letter and a type, such as `B-PER` or `b_per`; or a
            letter alone, where there are no types.
        kind: one of these three. By default it is read off the letters: `BIOES` where some end a span, `IOB1` where a type has
            I and no B, which no BIO sequence could hold, and otherwise `BIO` (which has the letters of `IOB1`).

    Raises:
        ValueError: ids that do not go from 0 on, or a label or a set of letters that says no scheme.
    """

    def __init__(self, id2label: Mapping[int, str] | Sequence[str], kind: Kind | None = None) -> None:
        labels = dict(id2label) if isinstance(id2label, Mapping) else dict(enumerate(id2label))
        if not labels or sorted(labels) != list(range(len(labels))):
            raise ValueError(f"`id2label` must name the labels 0 to n - 1, got the ids {sorted(labels)}.")
        self.labels = [labels[index] for index in range(len(labels))]
        self.parts = [_read(label) for label in self.labels]
        roles = {role for role, _ in self.parts} - {"outside"}
        if kind is None:
            kind = self._told_by(roles)
        check_choice("kind", kind, KINDS)
        if kind != "BIOES" and roles & {"end", "single"}:
            raise ValueError(f"`kind` {kind!r} has no labels that end a span or are one, but `id2label` has: {self.labels}.")
        self.kind: Kind = kind

    def _told_by(self, roles: set[str]) -> Kind:
        if not roles:
            raise ValueError(f"`id2label` must name spans, such as 'B-PER' and 'I-PER', got {self.labels}.")
        if roles & {"end", "single"}:
            if not {"begin", "end", "single"} <= roles:
                raise ValueError(
                    "`id2label` must have labels that begin a span, end it, and are one (B, E and S, or B, L and U), if it has "
                    f"any of the last two, got {self.labels}. Say which scheme it is with `kind`."
                )
            return "BIOES"
        begun = {kind for role, kind in self.parts if role == "begin"}
        return "IOB1" if any(role == "inside" and kind not in begun for role, kind in self.parts) else "BIO"

    @cached_property
    def constraints(self) -> TagConstraints:
        """Which labels may follow each other, begin and end a sentence: for a `ConditionalRandomField`."""
        starts = [self._may_follow(("outside", ""), own) for own in self.parts]
        ends = [self._may_follow(own, ("outside", "")) for own in self.parts]
        pairs = [[self._may_follow(first, second) for second in self.parts] for first in self.parts]
        # On the CPU also where a model is made without memory, to be filled from a file: there are no weights here.
        return TagConstraints(*(torch.tensor(own, device="cpu") for own in (pairs, starts, ends)))

    def _may_follow(self, first: tuple[str, str], second: tuple[str, str]) -> bool:
        """Beyond a sentence, there is as good as an O."""
        same = first[0] != "outside" and first[1] == second[1]
        if self.kind == "BIO":
            return second[0] != "inside" or same
        if self.kind == "IOB1":
            return second[0] != "begin" or same
        if first[0] in ("begin", "inside"):
            return second[0] in ("inside", "end") and same
        return second[0] not in ("inside", "end")

    @cached_property
    def goes_on(self) -> Tensor:
        """`(tags, tags)` in bool, whether a label (column) after another (row) is of the same span."""
        return torch.tensor([[self._goes_on(first, second) for second in self.parts] for first in self.parts], device="cpu")

    @staticmethod
    def _goes_on(first: tuple[str, str], second: tuple[str, str]) -> bool:
        return second[0] in ("inside", "end") and first[0] not in ("outside", "end", "single") and first[1] == second[1]

    def decoder(
        self, begin: float = 0.0, inside: float = 0.0, learned: ConditionalRandomField | None = None
    ) -> ConditionalRandomField:
        """A field with these constraints, for emissions of a model that was trained without them.

        Its best sequence is the one of highest score (the sum of logits) among those that are valid; take the labels of pieces
        of words out by the mask, which may have holes.

        Args:
            begin: what is added where a span begins: more of it finds more spans, at the cost of precision.
            inside: what is added where a span goes on: more of it makes longer spans. `choose_span_biases` finds both.
            learned: the field of a model that was trained with one, to whose scores these are added.
        """
        field = ConditionalRandomField(len(self.labels), batch_first=True, constraints=self.constraints)
        is_span = torch.tensor([role != "outside" for role, _ in self.parts])
        with torch.no_grad():
            field.transitions.copy_(torch.where(self.goes_on, inside, torch.where(is_span, begin, 0.0)))
            field.start_transitions.copy_(torch.where(is_span, begin, 0.0))
            field.end_transitions.zero_()
            if learned is not None:
                for own, theirs in zip(field.parameters(), learned.parameters(), strict=True):
                    own.add_(theirs.to(own.device))
        return field

    def spans(self, tags: Sequence[int]) -> list[Span]:
        """The spans of a sentence's labels, in order; a negative label is outside. In time O(words).

        Where labels are not valid, a span begins at whatever does not go on with the one before.
        """
        found: list[Span] = []
        before = "outside", ""
        for word, tag in enumerate(tags):
            own = self.parts[tag] if tag >= 0 else ("outside", "")
            if own[0] != "outside":
                start = found.pop().start if self._goes_on(before, own) else word
                found.append(Span(own[1], start, word + 1))
            before = own
        return found


def _read(label: str) -> tuple[str, str]:
    """What a label does in a span, and the type of that."""
    match = LABEL.fullmatch(label)
    letter = match[1].upper() if match else ""
    if match and letter == "O" and match[2] is None:
        return "outside", ""
    if not match or letter not in ROLES:
        raise ValueError(
            f"`id2label` must have labels that are 'O', or one of the letters {', '.join(ROLES)} and a type, such as 'B-PER', "
            f"got {label!r}. Rename the labels."
        )
    return ROLES[letter], match[2] or ""
