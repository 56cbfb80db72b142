"""Structures out of torch-struct (Rush 2020), made to keep the contract of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.checks import check_count, check_floating
from hf_latent.inference.random import draw_seeds
from hf_latent.structures.structure import Structure

LARGEST_ENUMERATION = 300_000
# A structure with a forbidden part lies this far below all others: exp(-1000) is 0, also in float64.
BELOW = 1000.0
OURS = {
    "LinearChainCRF": "LinearChain",
    "SemiMarkovCRF": "Segmentation",
    "DependencyCRF": "DependencyTree",
    "NonProjectiveDependencyCRF": "DependencyTree(projective=False)",
}


def from_torch_struct(
    distribution_class: Any,
    labels: int = 1,
    positions: Callable[[Tensor, Tensor], Tensor] | None = None,
    enumerate_all: Callable[[int], Tensor] | None = None,
    event_dims: int | None = None,
    **options: Any,
) -> "TorchStructStructure":
    """A distribution of torch-struct as a structure, on which every estimator and operation of ours works.

    >>> from torch_struct import TreeCRF
    >>> from hf_latent.structures import from_torch_struct
    >>> trees = from_torch_struct(TreeCRF, labels=2)
    >>> spans = trees.argmax(torch.randn(3, 5, 5, 2), torch.tensor([5, 4, 1]))

    `TreeCRF` (binary constituency trees with a label for each of their 2n - 1 spans; scores `(batch, n, n, labels)`, by first
    word, last word and label) is known. Another class takes the arguments that say what it is. torch-struct's own slips are
    seen to: scores are not marked as needing a gradient, and none is needed (also in inference mode); forbidden parts (-inf)
    and whatever lies beyond a length give no NaN; a row may be empty; float16 is summed in float32.

    Needs `pip install 'hf_latent[torch-struct]'`, and costs what torch-struct costs. `top_k` enumerates all structures.

    Args:
        distribution_class: a `StructDistribution` of torch-struct.
        labels: of `TreeCRF`.
        positions: from scores and `lengths (batch,)` to the entries of the scores that count, in bool.
        enumerate_all: from a length to all structures of it, `(count, *event)`.
        event_dims: the number of dimensions of one structure.
        **options: of the distribution, such as `multiroot`.

    Raises:
        ValueError: a class that is not known, without the three arguments that describe it; one of which we have our own.
    """
    name = getattr(distribution_class, "__name__", repr(distribution_class))
    if name in OURS:
        raise ValueError(f"`distribution_class` {name} is `hf_latent.{OURS[name]}` here, which is faster: take that.")
    fixed = tuple(sorted(options.items()))
    if name == "TreeCRF":
        check_count("labels", labels)
        return TorchStructStructure(distribution_class, 3, spans_within, _Trees(labels), labels, fixed)
    if positions is None or enumerate_all is None or event_dims is None:
        raise ValueError(
            f"`distribution_class` must be TreeCRF, or come with `positions`, `enumerate_all` and `event_dims`, got {name}."
        )
    return TorchStructStructure(distribution_class, event_dims, positions, enumerate_all, None, fixed)


@dataclass(frozen=True)
class TorchStructStructure(Structure):
    """What `from_torch_struct` returns."""

    distribution_class: Any
    dims: int
    where: Callable[[Tensor, Tensor], Tensor]
    all_of: Callable[[int], Tensor]
    labels: int | None
    options: tuple[tuple[str, Any], ...]

    @property
    def event_dims(self) -> int:  # type: ignore[override]
        return self.dims

    def check_shapes(self, scores: object, lengths: object = None) -> tuple[Tensor, Tensor | None]:
        if self.labels is not None:
            found = check_floating(scores, "(batch, n, n, labels)", 4)
            if found.shape[1] != found.shape[2] or found.shape[3] != self.labels:
                raise ValueError(
                    f"`scores` must have shape (batch, n, n, {self.labels}), for `labels={self.labels}`, got "
                    f"{tuple(found.shape)}."
                )
        return super().check_shapes(scores, lengths)

    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor:
        return self.where(scores, lengths)

    def enumerate(self, size: int) -> Tensor:
        return self.all_of(size)

    def num_parts(self, lengths: Tensor) -> Tensor:
        return (2 * lengths - 1).clamp(min=0) if self.labels is not None else super().num_parts(lengths)

    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        filled, lengths, _ = self._filled(scores.detach(), lengths)
        found = torch.zeros_like(scores)
        rows = lengths > 0
        if bool(rows.any()):
            with torch.inference_mode(False), torch.enable_grad():
                best = self._distribution(filled[rows].clone(), lengths[rows]).argmax
            found[rows] = best.detach().to(scores.dtype)
        return found

    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        filled, lengths, least = self._filled(scores, lengths)
        rows = lengths > 0
        total = filled.flatten(1)[:, :0].sum(1)
        if not bool(rows.any()):
            return total
        value = self._distribution(filled[rows].clone(), lengths[rows]).partition
        impossible = value.detach() < least[rows] - BELOW / 2
        return total.masked_scatter(rows, value.masked_fill(impossible, -torch.inf))

    def sample(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        check_count("num_samples", num_samples)
        self.log_partition(scores.detach(), lengths)  # an error, where a row has no structure
        filled, lengths, _ = self._filled(scores.detach(), lengths)
        found = scores.detach().new_zeros(num_samples, *scores.shape)
        rows = lengths > 0
        if bool(rows.any()):
            seed = int(draw_seeds((1,), generator, torch.device("cpu")))
            with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
                torch.manual_seed(seed)
                drawn = self._distribution(filled[rows].clone(), lengths[rows]).sample((num_samples,))
            found[:, rows] = drawn.to(scores.dtype)
        return found

    def _distribution(self, scores: Tensor, lengths: Tensor) -> Any:
        return self.distribution_class(scores, lengths=lengths, **dict(self.options))

    def _filled(self, scores: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Finite scores in float32 or better, `lengths`, and the least that the allowed parts of a structure come to.

        What does not count is 0. A forbidden part is so low that no other part makes up for it.
        """
        checked = self.checked(scores, lengths)
        exact = checked.scores.to(torch.promote_types(scores.dtype, torch.float32))
        own = exact.detach().flatten(1).double()
        allowed = checked.allowed.flatten(1)
        parts = self.num_parts(checked.lengths).double()
        lowest = own.masked_fill(~allowed, torch.inf).amin(1).nan_to_num(posinf=0.0) if own.shape[1] else own.sum(1)
        highest = own.masked_fill(~allowed, -torch.inf).amax(1).nan_to_num(neginf=0.0) if own.shape[1] else own.sum(1)
        low = (lowest - parts * (highest - lowest) - BELOW).to(exact.dtype)
        low = low.view(-1, *[1] * (exact.dim() - 1))
        filled = torch.where(checked.allowed, exact, low.where(checked.positions, torch.zeros_like(low)))
        return filled, checked.lengths, parts * lowest


def spans_within(scores: Tensor, lengths: Tensor) -> Tensor:
    """Of `(batch, n, n, labels)`, the spans from a first word to one that is not before it, within the sentence."""
    words = torch.arange(scores.shape[1], device=scores.device)
    spans = (words[:, None] <= words) & (words < lengths[:, None, None])
    return spans[..., None].expand(scores.shape)


@dataclass(frozen=True)
class _Trees:
    """All binary trees over some words, with a label for each span."""

    labels: int

    def __call__(self, size: int) -> Tensor:
        count = _catalan(size - 1) * self.labels ** (2 * size - 1) if size else 1
        if count > LARGEST_ENUMERATION:
            raise ValueError(f"`size` must be such that there are at most {LARGEST_ENUMERATION} trees, got {size}: {count}.")
        found = torch.zeros(count, size, size, self.labels)
        for row, spans in enumerate(_labelled(0, size - 1, self.labels) if size else [()]):
            for first, last, label in spans:
                found[row, first, last, label] = 1.0
        return found


@lru_cache(maxsize=1000)
def _labelled(first: int, last: int, labels: int) -> list[tuple[tuple[int, int, int], ...]]:
    """The labelled spans of each tree over the words `first` to `last`."""
    below: list[tuple[tuple[int, int, int], ...]] = [()]
    if first < last:
        below = [
            left + right
            for middle in range(first, last)
            for left in _labelled(first, middle, labels)
            for right in _labelled(middle + 1, last, labels)
        ]
    return [((first, last, label), *spans) for label in range(labels) for spans in below]


def _catalan(n: int) -> int:
    count = 1
    for k in range(n):
        count = count * 2 * (2 * k + 1) // (k + 2)
    return count
