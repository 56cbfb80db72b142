"""Independent choices from one structure that share one loss, such as a tree for each of two sentences."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.active_set import MAX_ITER
from hf_latent.inference.checks import Checked, check_start, seen_as
from hf_latent.structures.structure import Structure, TopK

LARGEST_ENUMERATION = 300_000


@dataclass(frozen=True)
class Independent(Structure, guarded=False):
    """Independent choices, each from the same structure: Z is the product of their sets.

    Scores are `(batch, choices, *event)`, `lengths (batch, choices)`. One example has one loss, however many choices it makes:
    so estimators see them as one structure, whose score is the sum of theirs.

    Attributes:
        structure: what each choice is made from.
    """

    structure: Structure

    def __post_init__(self) -> None:
        if not isinstance(self.structure, Structure) or isinstance(self.structure, Independent):
            raise TypeError(
                f"`structure` must be what each choice is made from, such as DependencyTree(), got {self.structure!r}."
            )

    @property
    def event_dims(self) -> int:  # type: ignore[override]
        return self.structure.event_dims + 1

    @property
    def group_dims(self) -> int | None:  # type: ignore[override]
        return self.structure.group_dims or self.structure.event_dims

    def _flat(self, scores: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The choices as rows of one batch."""
        if not isinstance(scores, Tensor) or scores.dim() != self.event_dims + 1:
            shape = f"of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else repr(scores)
            raise ValueError(
                f"`scores` must be a tensor (batch, choices, ...) with {self.event_dims + 1} dimensions, got {shape}."
            )
        if not scores.shape[1]:
            raise ValueError(f"`scores` must have at least one choice in dimension 1, got shape {tuple(scores.shape)}.")
        if lengths is not None:
            lengths = torch.as_tensor(lengths)
            if lengths.shape != scores.shape[:2]:
                raise ValueError(
                    f"`lengths` must have shape {tuple(scores.shape[:2])}, one for each choice of each row, got "
                    f"{tuple(lengths.shape)}."
                )
            lengths = lengths.flatten()
        return scores.flatten(0, 1), lengths

    def _of_each(self, operation: Callable[..., Any], scores: Tensor, lengths: Tensor | None, *others: Any) -> Any:
        """What an operation of the one structure makes of all choices; its errors name a row and a choice of it."""
        flat = self._flat(scores, lengths)
        with _choices_named(scores):
            return operation(*flat, *others)

    def checked(self, scores: Tensor, lengths: Tensor | None = None) -> Checked:
        """`scores`, -inf where forbidden, `lengths (batch, choices)`, and masks; or an error that names what is wrong."""
        flat = self._of_each(self.structure.checked, scores, lengths)
        scores, *masks = (part.view(scores.shape) for part in (flat.scores, flat.positions, flat.allowed))
        return Checked(scores, flat.lengths.view(scores.shape[:2]), *masks)

    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True where an entry of `scores` counts."""
        return self.structure.positions(scores.flatten(0, 1), lengths.flatten()).view(scores.shape)

    def mask(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True where a part of a choice can be."""
        return self.structure.mask(scores.flatten(0, 1), lengths.flatten()).view(scores.shape)

    def num_parts(self, lengths: Tensor) -> Tensor:
        """Of each choice, `(batch, choices)`."""
        return self.structure.num_parts(lengths)

    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The best of each choice; no gradient."""
        return self._of_each(self.structure.argmax, scores, lengths).view(scores.shape)

    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The sum of the choices' log-partitions, `(batch,)`."""
        return self._of_each(self.structure.log_partition, scores, lengths).view(scores.shape[:2]).sum(1)

    def _log_partition(self, checked: Checked) -> Tensor:
        with _choices_named(checked.scores):
            return self.structure._log_partition(_flat(checked)).view(checked.scores.shape[:2]).sum(1)

    def _marginals(self, checked: Checked) -> Tensor:
        with _choices_named(checked.scores):
            return self.structure._marginals(_flat(checked)).view(checked.scores.shape)

    def _check_start(self, start: object, checked: Checked) -> Tensor | None:
        if start is None:
            return None
        choices = check_start(start, checked.scores).flatten(0, 1)
        with _choices_named(checked.scores):
            found = self.structure._check_start(choices, _flat(checked))
        return None if found is None else found.reshape(len(checked.scores), -1)

    def marginals(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The marginals of each choice."""
        return self._of_each(self.structure.marginals, scores, lengths).view(scores.shape)

    def sparsemap(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tol: float | None = None,
        max_iter: int = MAX_ITER,
        start: Tensor | None = None,
    ) -> Tensor:
        """The projection of each choice: that onto a product is the product of projections."""
        if start is not None:
            start = check_start(start, scores).flatten(0, 1)
        return self._of_each(self.structure.sparsemap, scores, lengths, tol, max_iter, start).view(scores.shape)

    def project_from(self, targets: Tensor, start: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The projection of each choice's target; no gradient."""
        flat, lengths = self._flat(targets, lengths)
        start = check_start(start, targets).flatten(0, 1)
        with _choices_named(targets):
            return self.structure.project_from(flat, start, lengths).view(targets.shape)

    def project_from_marginals(self, targets: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The projection of each choice's target; no gradient."""
        flat, lengths = self._flat(scores, lengths)
        with _choices_named(scores):
            return self.structure.project_from_marginals(targets.flatten(0, 1), flat, lengths).view(scores.shape)

    def sample(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent draws for each choice, `(num_samples, batch, choices, *event)`; no gradient."""
        drawn = self._of_each(self.structure.sample, scores, lengths, num_samples, generator)
        return drawn.view(num_samples, *scores.shape)

    def top_k(self, scores: Tensor, lengths: Tensor | None = None, k: int = 1) -> TopK:
        """The k best combinations, from the k best of each choice; no gradient."""
        structures, values = self._of_each(self.structure.top_k, scores, lengths, k)
        batch, choices = scores.shape[:2]
        if not batch:
            return TopK(scores.detach().new_zeros(0, k, *scores.shape[1:]), values.new_zeros(0, k))
        structures, values = structures.view(batch, choices, k, *scores.shape[2:]), values.view(batch, choices, k)
        total, picked = values.new_zeros(batch, 1), torch.zeros(batch, 1, 0, dtype=torch.long, device=scores.device)
        for choice in range(choices):
            sums = (total[:, :, None] + values[:, choice, None, :]).flatten(1)
            best = sums.topk(min(k, sums.shape[1]), dim=1)
            before = picked.gather(1, (best.indices // k)[:, :, None].expand(-1, -1, choice))
            total, picked = best.values, torch.cat([before, (best.indices % k)[:, :, None]], dim=2)
        rows = torch.arange(batch, device=scores.device)[:, None, None]
        columns = torch.arange(choices, device=scores.device)
        found = structures[rows, columns, picked]
        found = found.masked_fill(total.isneginf().view(batch, -1, *[1] * (scores.dim() - 1)), 0)
        missing = k - total.shape[1]
        return TopK(
            torch.nn.functional.pad(found, (0, 0) * (scores.dim() - 1) + (0, missing)),
            torch.nn.functional.pad(total, (0, missing), value=-torch.inf),
        )

    def enumerate(self, size: int) -> Tensor:
        """Not to be had from one size, as the number of choices is in the scores: see `enumerate_rows`."""
        raise ValueError("`Independent` has a size for each choice: use `enumerate_rows(scores, lengths)`.")

    def enumerate_rows(self, scores: Tensor, lengths: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each row: its number, all combinations in the shape of `scores[row]`, and the score of each."""
        rows = self._of_each(lambda *all: list(self.structure.enumerate_rows(*all)), scores, lengths)
        flat = [(vertices, values) for _, vertices, values in rows]
        choices = scores.shape[1]
        for row in range(scores.shape[0]):
            own = flat[row * choices : (row + 1) * choices]
            count = math.prod(len(values) for _, values in own)
            if count > LARGEST_ENUMERATION:
                raise ValueError(
                    f"Row {row} has {count} combinations, more than can be gone through ({LARGEST_ENUMERATION}). Use `sample`, "
                    "or an estimator that does not enumerate."
                )
            places = torch.cartesian_prod(*[torch.arange(len(values)) for _, values in own]).view(-1, choices)
            vertices = torch.stack([one[places[:, choice]] for choice, (one, _) in enumerate(own)], dim=1)
            yield row, vertices, reduce(torch.add, [values[places[:, choice]] for choice, (_, values) in enumerate(own)])


def _flat(checked: Checked) -> Checked:
    """The choices as rows of one batch."""
    return Checked(*(part.flatten(0, 1) for part in checked))


def _choices_named(scores: Tensor) -> AbstractContextManager[None]:
    """Within it, errors about a choice name its row and its place there, not its place among all rows."""
    choices = scores.shape[1]
    return seen_as(lambda name, place: (name, (*divmod(place[0], choices), *place[1:])))
