"""Scores to choose by and all structures that can be chosen: what the conformance suite is held against.

All structures are taken from `enumerate_rows`, which `test_all_structures_are_there` holds to the definition of the structure
and to its known count. What is computed from them here is plain linear algebra, none of the library's code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from hf_latent import Structure

LOW = {
    "all allowed": None,
    "-inf": -torch.inf,
    "finfo.min": torch.finfo(torch.float64).min,
    "-1e18": -1e18,
}
VALUES = ("log_partition", "entropy", "cross_entropy", "kl_divergence", "log_prob")  # one number for each row
POINTS = ("argmax", "marginals", "sparsemap")  # of the shape of the scores
OPERATIONS = (*POINTS, *VALUES, "sample", "top_k")


@dataclass(frozen=True)
class Problem:
    """Scores, and all that can be chosen by them.

    Attributes:
        scores: `(batch, *event)` in float64, as a caller gives them: NaN where they do not count, low where `forbidden`.
        clean: the same scores, 0 in those places.
        other: scores of another distribution, NaN where they do not count.
        lengths: `(batch,)`, or `(batch, choices)`.
        vertices: of each row, the structures that are left, `(count, *event)` in float64.
        left: `(batch, *event)`, True where a part can be: it counts, some structure has it, and it is not forbidden.
        forbidden: `(batch, *event)`.
    """

    structure: Structure
    scores: Tensor
    clean: Tensor
    other: Tensor
    lengths: Tensor
    vertices: list[Tensor]
    left: Tensor
    forbidden: Tensor

    def logs(self, clean: Tensor) -> list[Tensor]:
        """Of each row, log p of all its structures, with a gradient to `clean`."""
        return [(own * clean[row]).flatten(1).sum(1).log_softmax(0) for row, own in enumerate(self.vertices)]

    def best(self, clean: Tensor) -> Tensor:
        return torch.stack([own[logs.argmax()] for own, logs in zip(self.vertices, self.logs(clean), strict=True)])

    def mean(self, clean: Tensor) -> Tensor:
        """The marginals, with a gradient to `clean`."""
        pairs = zip(self.logs(clean), self.vertices, strict=True)
        return torch.stack([torch.einsum("k,k...->...", logs.exp(), own) for logs, own in pairs])

    def projection(self, targets: Tensor) -> Tensor:
        return torch.stack([project(targets[row], own) for row, own in enumerate(self.vertices)])

    def run(self, name: str, scores: Tensor, lengths: Tensor | None = None, other: Tensor | None = None) -> Tensor:
        """The operation `name`, with whatever else it is called with; seeded."""
        lengths = self.lengths if lengths is None else lengths
        if name in ("cross_entropy", "kl_divergence"):
            return getattr(self.structure, name)(scores, self.other if other is None else other, lengths)
        if name == "log_prob":
            z = torch.stack([own[0] for own in self.vertices])[: len(scores)]
            return self.structure.log_prob(z[tuple(slice(size) for size in scores.shape)].to(scores.device), scores, lengths)
        if name == "sample":
            return self.structure.sample(scores, lengths, 3, torch.Generator().manual_seed(4)).transpose(0, 1)
        if name == "top_k":
            return self.structure.top_k(scores, lengths, 3).structures
        return getattr(self.structure, name)(scores, lengths)


@cache
def problem_of(suite: Any, low: str, seed: int = 1, scale: float = 1.5) -> Problem:
    """The problem of a test class `suite`; its tests share it, so none may change it."""
    generator = torch.Generator().manual_seed(seed)
    structure, lengths = suite.structure, torch.tensor(suite.lengths)
    shape = suite.shape(len(lengths), int(lengths.max()))
    scores, other = (scale * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    every = [own.double() for _, own, _ in structure.enumerate_rows(torch.zeros(shape, dtype=torch.float64), lengths)]
    can_be = torch.stack([own.bool().any(0) for own in every])
    forbidden, vertices = torch.zeros_like(can_be), every
    if LOW[low] is not None:
        vertices = []
        for row, own in enumerate(every):
            forbidden[row], left = _forbid(own, can_be[row], generator)
            vertices.append(left)
        assert forbidden.any(), "the test could not tell what is forbidden from what is allowed"
    outside = ~structure.positions(scores, lengths)
    given = scores.masked_fill(outside, torch.nan).masked_fill(forbidden, LOW[low] or 0.0)
    left = can_be & ~forbidden
    return Problem(
        structure,
        given,
        scores.masked_fill(~left, 0.0),
        other.masked_fill(outside, torch.nan),
        lengths,
        vertices,
        left,
        forbidden,
    )


def _forbid(own: Tensor, can_be: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Parts of a row to forbid, and the structures that remain, of which there are some, with a part in one of them."""
    for _ in range(30):
        forbidden = (torch.rand(can_be.shape, generator=generator) < 0.3) & can_be
        left = own[~(own.bool() & forbidden).flatten(1).any(1)]
        if forbidden.any() and left.any():
            return forbidden, left
    return torch.zeros_like(can_be), own


def project(target: Tensor, vertices: Tensor) -> Tensor:
    """The projection of `target` onto conv(vertices), by nonnegative least squares.

    For weights w = t u with u in the simplex, |Σ w (v - target)|² + (Σ w - 1)² is least at the u whose Σ u v is nearest.
    """
    used = vertices.bool().any(0)
    goal = torch.where(used, target.double(), 0.0).flatten()
    differences = vertices.flatten(1) - goal
    matrix = torch.cat([differences, torch.ones(len(vertices), 1, dtype=torch.float64)], 1).T.numpy()
    weights, _ = nnls(matrix, np.append(np.zeros(len(matrix) - 1), 1.0))
    weights = torch.from_numpy(weights / weights.sum())
    return torch.einsum("k,k...->...", weights, vertices)


def group_counts(problem: Problem) -> Tensor | None:
    """How many parts of each group a structure of each row has, `(batch, *groups)`; None where structures differ in that."""
    dims = problem.structure.group_dims or problem.structure.event_dims
    counts = [own.flatten(-dims).sum(-1) for own in problem.vertices]
    if any((own != own[0]).any() for own in counts):
        return None
    return torch.stack([own[0] for own in counts])


def is_among(z: Tensor, vertices: Tensor) -> bool:
    return bool((vertices == z.double()).flatten(1).all(1).any())


class Suite:
    """What a test class says of its structure.

    Attributes:
        structure: under test.
        lengths: of the rows of a batch, each small enough to go through all structures; the largest, and 0 and 1 if there are
            structures so short, among them. Of `Independent`, a list of lists.
        compiles: the operations that `torch.compile` takes in one graph.
        without_values: the operations that work on the device `meta` and under fake tensors.
        choices: whether a row has several, of which an error names one.
        far: how far from 0 float32 scores may lie while entropy and log-probability stay as they are.
    """

    structure: Structure
    lengths: Sequence[int] | Sequence[Sequence[int]]
    compiles: Sequence[str] = OPERATIONS
    without_values: Sequence[str] = ()
    choices: bool = False
    far: float = 2.0**20

    def event(self, longest: int) -> tuple[int, ...]:
        """The shape of the scores of one choice of this length; a shorter one lies in the corner of it."""
        raise NotImplementedError

    def is_structure(self, z: Tensor, length: Any) -> bool:
        """Whether `z`, of zeros and ones in the shape of `event(length)`, is one by the definition."""
        raise NotImplementedError

    def count(self, length: Any) -> int:
        """How many structures of this length there are, by a formula or from a publication."""
        raise NotImplementedError

    def shape(self, batch: int, longest: int) -> tuple[int, ...]:
        return batch, *self.event(longest)

    def row(self, row: int, entry: Sequence[int]) -> str:
        """How an error names the row, or the choice in it, that has this entry; a pattern."""
        return rf"\[{row}, {entry[0]}\]" if self.choices else rf"\[{row}\]"

    def corner(self, length: Any) -> tuple[slice, ...]:
        return tuple(slice(size) for size in self.event(int(torch.as_tensor(length).max())))

    @pytest.fixture(params=LOW)
    def problem(self, request) -> Problem:
        return problem_of(type(self)(), request.param)

    @pytest.fixture
    def plain(self) -> Problem:
        return problem_of(type(self)(), "all allowed")

    @pytest.fixture
    def masked(self) -> Problem:
        return problem_of(type(self)(), "-inf")

    # All of a class are alike, so that they share what is cached.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))
