"""The kernels on trees behind the contract of all algorithms: tensors in and out.

Sums of a few sentences lie beyond what the kernels can hold in a number; for those, the reference answers.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hf_latent.inference.active_set import MAX_ITER, STEP_POINTS, STEP_TOLERANCE
from hf_latent.inference.algorithms import Algorithms, Projection
from hf_latent.inference.checks import raise_invalid_start
from hf_latent.inference.cpu.batch import DONE, Batch, array
from hf_latent.inference.cpu.projections import Found, derivative, gathered
from hf_latent.inference.cpu.simd import WIDTH
from hf_latent.inference.cpu.threads import scratch
from hf_latent.structures.dependency_tree.cpu import kernels, sparsemap
from hf_latent.structures.dependency_tree.cpu.from_marginals import project_from_marginals
from hf_latent.structures.dependency_tree.reference.trees import TreeReference

REFERENCE = TreeReference()


class Sentences(Batch):
    """A batch of sentences for trees of one kind."""

    def __init__(self, structure: Any, scores: Tensor, lengths: Tensor | None) -> None:
        super().__init__(scores, lengths, scores.shape[1], structure.positions)
        self.structure = structure
        self.options = structure.projective, structure.single_root

    def arguments(self, first: int, last: int, operation: str) -> tuple[Any, ...]:
        """What all kernels take next to the scores: sizes, order, range, options, and room to work in."""
        size = self.largest_size(first) + 1
        projective, other = kernels.CHARTS[operation]
        # What is not needed is there all the same, with a single place.
        room = scratch((projective if self.structure.projective else other) * size * size * WIDTH + projective * WIDTH)
        return self.sizes, self.order, first, last, *self.options, room

    def rest_for_reference(self) -> tuple[np.ndarray, Tensor, Tensor] | None:
        """The rows that the kernels leave to the reference, with their scores and lengths."""
        return self.rest(lambda scores, lengths: REFERENCE.has_structure(self.structure, scores, lengths))


class TreeKernels(Algorithms):
    """Of `DependencyTree`, on the CPU; results of the shape of the scores are in the dtype that the kernels take."""

    checks_values: ClassVar[bool] = True

    def argmax(self, structure: Any, scores: Tensor, lengths: Tensor | None, required: bool = True) -> Tensor:
        """The arcs of a best tree, `(batch, n, n + 1)`."""
        batch = Sentences(structure, scores, lengths)
        arcs = np.zeros_like(batch.values)

        def work(first: int, last: int) -> None:
            kernels.argmax(batch.values, *batch.arguments(first, last, "argmax"), arcs, batch.status, batch.cancelled)

        projective = structure.projective
        batch.run(work, 0.6 if projective else 15, 3 if projective else 2, required=required)
        return torch.from_numpy(arcs)

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor | None) -> Tensor:
        """`(batch,)` in float64."""
        batch = Sentences(structure, scores, lengths)
        out = np.zeros(len(batch.values))

        def work(first: int, last: int) -> None:
            arguments = batch.arguments(first, last, "log_partition")
            kernels.log_partition(batch.values, *arguments, out, batch.status, batch.cancelled)

        batch.run(work, 0.5)
        result = torch.from_numpy(out)
        if rest := batch.rest_for_reference():
            rows, those, own = rest
            result[rows] = REFERENCE.log_partition(structure, those, own)
        return result

    def marginals(self, structure: Any, scores: Tensor, lengths: Tensor | None) -> Tensor:
        """`(batch, n, n + 1)`."""
        batch = Sentences(structure, scores, lengths)
        out = np.zeros_like(batch.values)

        def work(first: int, last: int) -> None:
            kernels.marginals(batch.values, *batch.arguments(first, last, "marginals"), out, batch.status, batch.cancelled)

        batch.run(work, 1.4 if structure.projective else 0.9)
        if rest := batch.rest_for_reference():
            rows, those, own = rest
            out[rows] = REFERENCE.marginals(structure, those, own)
        return torch.from_numpy(out)

    def marginals_derivative(self, structure: Any, scores: Tensor, lengths: Tensor | None, direction: Tensor) -> Tensor:
        """The derivative of the marginals along `direction (batch, n, n + 1)`."""
        batch = Sentences(structure, scores, lengths)
        directions, out = array(direction.to(scores.dtype)), np.zeros_like(batch.values)

        def work(first: int, last: int) -> None:
            arguments = batch.arguments(first, last, "marginals_derivative")
            kernels.marginals_derivative(batch.values, directions, *arguments, out, batch.status, batch.cancelled)

        batch.run(work, 3.3 if structure.projective else 1.4)
        if rest := batch.rest_for_reference():
            rows, those, own = rest
            out[rows] = REFERENCE.marginals_derivative(structure, those, own, direction[rows])
        return torch.from_numpy(out)

    def sample(self, structure: Any, scores: Tensor, lengths: Tensor | None, seeds: Tensor) -> Tensor:
        """The heads of drawn trees, `(samples, batch, n)`, -1 beyond the sentence."""
        batch = Sentences(structure, scores, lengths)
        heads = np.full((len(seeds), *batch.values.shape[:2]), -1)
        states = seeds.contiguous().numpy().view(np.uint64)

        def work(first: int, last: int) -> None:
            arguments = batch.arguments(first, last, "sample")
            kernels.sample(batch.values, states, *arguments, heads, batch.status, batch.cancelled)

        batch.run(work, 0.9 * len(seeds))
        result = torch.from_numpy(heads)
        if rest := batch.rest_for_reference():
            rows, those, own = rest
            result[:, rows] = REFERENCE.sample(structure, those, own, seeds[:, rows])
        return result

    def sparsemap(
        self, structure: Any, scores: Tensor, lengths: Tensor | None, start: Tensor | None, tol: float, max_iter: int
    ) -> Projection:
        """The projection; its choices are heads, -1 beyond the sentence."""
        batch = Sentences(structure, scores, lengths)
        count, n = batch.values.shape[:2]
        starts = np.full((count, n), -1) if start is None else _heads(array(start), batch.sizes)
        point, gaps = np.zeros_like(batch.values), np.zeros(count)
        found: list[Found] = []

        def work(first: int, last: int) -> None:
            arguments = batch.arguments(first, last, "sparsemap")
            limits = tol, max_iter, point, gaps, batch.status, batch.cancelled
            found.append(sparsemap.sparsemap(batch.values, starts, *arguments, *limits))

        batch.run(work, 80, longest=1000)
        return gathered(found, n, point, gaps, batch.status, scores)

    def sparsemap_derivative(
        self, structure: Any, direction: Tensor, lengths: Tensor | None, choices: Tensor, weights: Tensor, counts: Tensor
    ) -> Tensor:
        """The change of the projection along `direction (batch, n, n + 1)`, from what `sparsemap` found."""
        return derivative(direction, choices, weights, counts)

    def project_from(self, structure: Any, targets: Tensor, start: Tensor, lengths: Tensor | None) -> Tensor:
        """With a limit on the number of trees, after which the error is small."""
        return self.sparsemap(structure, targets, lengths, start, STEP_TOLERANCE, STEP_POINTS).point

    def project_from_marginals(self, structure: Any, targets: Tensor, scores: Tensor, lengths: Tensor | None) -> Tensor:
        """By marginals of tilted scores; short sentences by trees alone."""
        point, found = self.project_by_marginals(structure, targets, scores, lengths)
        if not found.all():
            rest = (~found).nonzero()[:, 0]
            own = None if lengths is None else lengths[rest]
            first = self.argmax(structure, scores[rest], own)
            limits = STEP_TOLERANCE, MAX_ITER
            point[rest] = self.sparsemap(structure, targets[rest], own, first, *limits).point.to(point.dtype)
        return point

    def project_by_marginals(
        self,
        structure: Any,
        targets: Tensor,
        scores: Tensor,
        lengths: Tensor | None,
        tol: float = 1e-3,
        most_points: int = STEP_POINTS,
    ) -> tuple[Tensor, Tensor]:
        """The projections of `targets`, which lie near the marginals of the scores, and which rows have one `(batch,)`."""
        batch = Sentences(structure, scores, lengths)
        aims, point = array(targets.to(scores.dtype)), np.zeros_like(batch.values)

        def work(first: int, last: int) -> None:
            arguments = batch.arguments(first, last, "marginals")
            project_from_marginals(batch.values, aims, *arguments, tol, most_points, point, batch.status, batch.cancelled)

        batch.run(work, 40, longest=3)
        return torch.from_numpy(point).to(scores.dtype), torch.from_numpy(batch.status == DONE)


def _heads(arcs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The heads `(batch, n)` of trees that are given as arcs. That they are trees is for the kernel to see."""
    heads = arcs.argmax(2)
    inside = np.arange(arcs.shape[1]) < sizes[:, None]
    one_each = (np.take_along_axis(arcs, heads[:, :, None], 2)[:, :, 0] == 1) & (np.abs(arcs).sum(2) == 1)
    if (inside & ~one_each).any():
        raise_invalid_start(int(np.flatnonzero((inside & ~one_each).any(1))[0]))
    return heads
