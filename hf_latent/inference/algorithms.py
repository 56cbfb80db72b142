"""The contract of a structure's algorithms on one kind of device, and those that follow from the others.

`inference` knows no structure: what it needs to know of one is in `Choices`, which structures are.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from hf_latent.inference import active_set
from hf_latent.inference.checks import checked_start, in_reach
from hf_latent.inference.derivatives import gradient, hessian_product
from hf_latent.inference.k_best import best_structures
from hf_latent.inference.random import uniforms


class Choices(Protocol):
    """A structure with one part in each group at most: of the last `group_dims` dimensions of its scores, one entry."""

    @property
    def group_dims(self) -> int: ...
    def longest(self, scores: Tensor) -> int: ...
    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor: ...


class Projection(NamedTuple):
    """SparseMAP's solution: the point, and the structures that it is made of, listed row by row.

    Attributes:
        point: `(batch, *event)`.
        choices: `(count, groups)`, the entry that each structure has in each group, -1 for none.
        weights: `(count,)` in float64.
        counts: `(batch,)`, how many structures each row has.
        gaps: `(batch,)` in float64, the duality gaps.
        converged: `(batch,)`.
    """

    point: Tensor
    choices: Tensor
    weights: Tensor
    counts: Tensor
    gaps: Tensor
    converged: Tensor


class Algorithms(ABC):
    """What is computed for a structure, a `Choices` with the options of the structure as attributes.

    A reference gives `argmax` and `log_partition`; all else follows, and is overridden where something better is known.
    `scores (batch, *event)` are of any floating dtype, with -inf for what is forbidden; `lengths (batch,)` are int64. Both are
    checked, and every row has a structure, unless `checks_values`: then they may hold anything, and `lengths` may be None.
    Results of the shape of the scores have any floating dtype: the operators convert them.
    """

    checks_values: ClassVar[bool] = False

    @abstractmethod
    def argmax(self, structure: Choices, scores: Tensor, lengths: Tensor, required: bool = True) -> Tensor:
        """A best structure. Where a row has none: an error if one is `required`, else 0."""

    @abstractmethod
    def log_partition(self, structure: Choices, scores: Tensor, lengths: Tensor) -> Tensor:
        """log Σ exp(s·z), `(batch,)`; a reference's is differentiable twice."""

    def has_structure(self, structure: Choices, scores: Tensor, lengths: Tensor) -> Tensor:
        """Which rows have a structure without a forbidden part, `(batch,)`."""
        best, mask = self.argmax(structure, scores, lengths), structure.positions(scores, lengths)
        return ~((best != 0) & mask & ~in_reach(scores, mask)).flatten(1).any(1)

    def marginals(self, structure: Choices, scores: Tensor, lengths: Tensor) -> Tensor:
        """The probability of each part: the gradient of the log-partition."""
        found = gradient(lambda moved: self.log_partition(structure, moved, lengths), scores)
        return found.clamp(0, 1)  # rounding only

    def marginals_derivative(self, structure: Choices, scores: Tensor, lengths: Tensor, direction: Tensor) -> Tensor:
        """The derivative of the marginals when the scores move along `direction`.

        The Jacobian is the Hessian of the log-partition and symmetric, so this is the vector-Jacobian product as well.
        """
        mask = structure.positions(scores, lengths)
        moved = direction.to(scores.dtype).masked_fill(~mask, 0.0)
        return hessian_product(lambda at: self.log_partition(structure, at, lengths), scores, moved)

    def sample(self, structure: Choices, scores: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """Drawn choices `(samples, batch, groups)`, -1 for none, one structure for each of `seeds (samples, batch)`.

        Group by group, from its marginals beside the choices before: a call of `marginals` for each group.
        """
        samples, dims = len(seeds), structure.group_dims
        current = scores.double().repeat(samples, *[1] * (scores.dim() - 1))
        groups = current.view(len(current), scores.shape[1:-dims].numel(), scores.shape[-dims:].numel())
        repeated = lengths.repeat(samples)
        choices = torch.full(groups.shape[:2], -1, device=scores.device)
        random = uniforms(seeds.flatten(), groups.shape[1])
        columns = torch.arange(groups.shape[2], device=scores.device)
        for group in range(groups.shape[1]):
            chances = self.marginals(structure, current, repeated).reshape(groups.shape)[:, group]
            steps = chances.cumsum(1)
            drawn = torch.searchsorted(steps, random[:, group, None] * steps[:, -1:], right=True)[:, 0]
            last = (chances > 0).int().cumsum(1).argmax(1)  # where rounding carried it past the end
            choices[:, group] = torch.minimum(drawn, last).where(steps[:, -1] > 0.5, -1)
            others = (columns != choices[:, group, None]) & (choices[:, group, None] >= 0)
            groups[:, group].masked_fill_(others, -torch.inf)
        return choices.view(samples, len(scores), groups.shape[1])

    def top_k(self, structure: Choices, scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The choices of the k best structures `(batch, k, groups)`, best first, and their scores `(batch, k)` in float64."""

        def oracle(some: Tensor, lengths: Tensor) -> Tensor:
            return self.argmax(structure, some, lengths, required=False)

        return best_structures(structure, scores, lengths, oracle, k)

    def sparsemap(
        self, structure: Choices, scores: Tensor, lengths: Tensor, start: Tensor | None, tol: float, max_iter: int
    ) -> Projection:
        """The Euclidean projection, by the active-set method, begun at the structures `start`."""
        if not scores.numel():
            return self._empty_projection(structure, scores)
        allowed = in_reach(scores, structure.positions(scores, lengths))
        first = None if start is None else checked_start(start, allowed, lambda own: self.argmax(structure, own, lengths))

        def oracle(flat: Tensor, rows: Tensor) -> Tensor:
            return self.argmax(structure, flat.view(len(flat), *scores.shape[1:]), lengths[rows]).double().flatten(1)

        found = active_set.project(scores.double().flatten(1), allowed.flatten(1), oracle, tol, max_iter, first)
        used = found.weights > 0
        choices = choices_of(structure, found.vertices.view(*found.weights.shape, *scores.shape[1:])[used])
        point = found.point.view(scores.shape).clamp(0, 1)
        return Projection(point, choices, found.weights[used], used.sum(1), found.gap, found.converged)

    def _empty_projection(self, structure: Choices, scores: Tensor) -> Projection:
        """Of rows that have nothing to choose: each is made of the one empty structure."""
        counts = torch.ones(len(scores), dtype=torch.int64, device=scores.device)
        choices = counts.new_full((len(scores), groups_and_columns(structure, tuple(scores.shape[1:]))[0]), -1)
        return Projection(scores.clone(), choices, counts.double(), counts, counts.double() - 1, counts.bool())

    def sparsemap_derivative(
        self, structure: Choices, direction: Tensor, lengths: Tensor, choices: Tensor, weights: Tensor, counts: Tensor
    ) -> Tensor:
        """The change of a projection when the scores move along `direction`; the Jacobian is symmetric."""
        vertices, shares = listed_by_row(structure, choices, weights, counts, direction)
        change = active_set.derivative(vertices.double().flatten(2), shares, direction.double().flatten(1))
        return change.view(direction.shape)

    def project_from(self, structure: Choices, targets: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
        """The projection of `targets`, begun at the structures `start`, as exact as an estimator needs it."""
        return self.sparsemap(structure, targets, lengths, start, active_set.STEP_TOLERANCE, active_set.MAX_ITER).point

    def project_from_marginals(self, structure: Choices, targets: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
        """The projection of `targets`, which lie near the marginals of the scores, as exact as an estimator needs it."""
        return self.project_from(structure, targets, self.argmax(structure, scores, lengths).to(targets.dtype), lengths)


def groups_and_columns(structure: Choices, event: tuple[int, ...]) -> tuple[int, int]:
    """How many groups there are in scores `(batch, *event)`, and of how many entries."""
    cut = len(event) - structure.group_dims
    return math.prod(event[:cut]), math.prod(event[cut:])  # of sizes that a graph may leave open


def choices_of(structure: Choices, vertices: Tensor) -> Tensor:
    """The entry of each group that 0/1 `vertices (count, *event)` have, `(count, groups)`, -1 where they have none."""
    groups = vertices.reshape(len(vertices), *groups_and_columns(structure, tuple(vertices.shape[1:])))
    if not groups.shape[2]:
        return groups.new_zeros(groups.shape[:2], dtype=torch.int64)
    return groups.argmax(2).masked_fill(~groups.bool().any(2), -1)


def vertices_of(structure: Choices, choices: Tensor, event: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """0/1 structures `(..., *event)` from `choices (..., groups)`, the inverse of `choices_of`."""
    _, columns = groups_and_columns(structure, event)
    vertices = torch.zeros((*choices.shape, columns), dtype=dtype, device=choices.device)
    places = choices[..., None]
    vertices.scatter_(-1, places.clamp(min=0), (places >= 0).to(dtype))
    return vertices.view(*choices.shape[:-1], *event)


def listed_by_row(structure: Choices, choices: Tensor, weights: Tensor, counts: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """The structures `(batch, places, *event)` and weights `(batch, places)` of a projection of the shape of `like`."""
    rows = torch.repeat_interleave(torch.arange(len(counts), device=choices.device), counts)
    places = torch.arange(len(rows), device=choices.device) - (counts.cumsum(0) - counts)[rows]
    most = int(counts.max()) if len(counts) else 0
    vertices = torch.zeros(len(counts), most, *like.shape[1:], device=choices.device)
    shares = weights.new_zeros(len(counts), most)
    vertices[rows, places] = vertices_of(structure, choices, tuple(like.shape[1:]), vertices.dtype)
    shares[rows, places] = weights
    return vertices, shares
