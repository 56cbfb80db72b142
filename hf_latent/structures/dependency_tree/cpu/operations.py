"""Batches of sentences on the CPU: tensors in and out, the kernels in between, the threads around them.

Sums of a few sentences lie beyond what the kernels can hold in a number; for those, the reference answers.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hf_latent.inference.active_set import STEP_POINTS
from hf_latent.inference.checks import check_finite, check_range, raise_invalid_start, raise_no_structure
from hf_latent.inference.cpu.simd import WIDTH
from hf_latent.inference.cpu.threads import SMALLEST_SHARE, run_groups, scratch
from hf_latent.structures.dependency_tree.cpu import gather, kernels
from hf_latent.structures.dependency_tree.cpu.from_marginals import project_from_marginals
from hf_latent.structures.dependency_tree.reference import trees
from hf_latent.structures.dependency_tree.reference.masking import arc_mask

KERNEL_DTYPES = (torch.float32, torch.float64)

Kind = tuple[bool, bool]  # projective, single_root


class Batch:
    """Checked sentences, and the order in which they go through the kernels."""

    def __init__(self, scores: Tensor, lengths: Tensor | None) -> None:
        self.scores, self.lengths = scores, lengths
        self.values = _array(scores)
        count, n = self.values.shape[:2]
        self.status, self.cancelled = np.zeros(count, np.int8), np.zeros(1, np.bool_)
        if lengths is None:
            self.sizes = np.full(count, n)
            self.order = np.arange(count)
        else:
            self.sizes = lengths.numpy().copy()  # kernels rely on them: nobody may change them meanwhile
            check_range(lengths, n)
            self.order = np.argsort(-self.sizes, kind="stable")

    def run(
        self,
        work: Callable[[int, int], None],
        nanoseconds: float,
        power: int = 3,
        longest: float = 1.0,
        required: bool = True,
    ) -> None:
        """Calls `work(first, last)` on ranges of groups; one of sentences of n words takes about `nanoseconds` · n^`power`.

        Rare ones take up to `longest` times as long.

        Raises:
            ValueError: a score that is not finite, or a sentence all whose trees are forbidden, if one is `required`.
        """
        groups = -(-len(self.order) // WIDTH)
        if groups * nanoseconds * (self.values.shape[1] + 1) ** power < 2 * SMALLEST_SHARE:
            if groups:
                work(0, groups)  # the rule, for which even to sum up the costs takes long
        else:
            run_groups(work, nanoseconds * (self.sizes[self.order[::WIDTH]] + 1.0) ** power, self.cancelled, longest)
        self.all_done = not self.status.any()
        if not self.all_done and (self.status == gather.NOT_FINITE).any():
            check_finite(self.scores, arc_mask(self._lengths(), self.scores.shape[1]))
        if required and not self.all_done and (self.status == gather.NO_TREE).any():
            raise_no_structure(int(np.flatnonzero(self.status == gather.NO_TREE)[0]))

    def rest(self, kind: Kind) -> tuple[np.ndarray, Tensor, Tensor] | None:
        """The rows out of the kernels' range, with their scores and lengths.

        Raises:
            ValueError: one of them has no tree.
        """
        if self.all_done:
            return None
        rows = np.flatnonzero(self.status == gather.OUT_OF_RANGE)
        if not len(rows):
            return None
        scores, lengths = self.scores[rows], self._lengths()[rows]
        missing = ~trees.has_tree(scores, lengths, *kind)
        if missing.any():
            raise_no_structure(int(rows[missing.int().argmax()]))
        return rows, scores, lengths

    def scratch(self, operation: str, first: int, kind: Kind) -> np.ndarray:
        """What an operation needs for the groups from `first`, whose sentences are the longest."""
        size = self.sizes.item(self.order.item(first * WIDTH)) + 1
        projective, other = kernels.CHARTS[operation]
        # What is not needed is there all the same, with a single place.
        return scratch((projective if kind[0] else other) * size * size * WIDTH + projective * WIDTH)

    def _lengths(self) -> Tensor:
        return torch.from_numpy(self.sizes)


def _array(tensor: Tensor) -> np.ndarray:
    """In order, and in float32 where it is less. Without a copy where that can be: new memory costs as much as inference."""
    tensor = tensor.detach().resolve_neg()
    return (tensor if tensor.dtype in KERNEL_DTYPES else tensor.float()).contiguous().numpy()


def argmax(scores: Tensor, lengths: Tensor | None, kind: Kind, required: bool = True) -> Tensor:
    """The arcs of a best tree, `(batch, n, n + 1)`, in the dtype of the scores, as are all results of that shape.

    Unless one is `required`, a sentence all whose trees are forbidden has no arcs.
    """
    batch = Batch(scores, lengths)
    arcs = np.zeros_like(batch.values)

    def work(first: int, last: int) -> None:
        room = batch.scratch("argmax", first, kind)
        kernels.argmax(batch.values, batch.sizes, batch.order, first, last, *kind, room, arcs, batch.status, batch.cancelled)

    batch.run(work, 0.6 if kind[0] else 15, 3 if kind[0] else 2, required=required)
    return torch.from_numpy(arcs).to(scores.dtype)


def log_partition(scores: Tensor, lengths: Tensor | None, kind: Kind) -> Tensor:
    """`(batch,)` in float64."""
    batch = Batch(scores, lengths)
    out = np.zeros(len(batch.values))

    def work(first: int, last: int) -> None:
        room = batch.scratch("log_partition", first, kind)
        kernels.log_partition(
            batch.values, batch.sizes, batch.order, first, last, *kind, room, out, batch.status, batch.cancelled
        )

    batch.run(work, 0.5)
    result = torch.from_numpy(out)
    if rest := batch.rest(kind):
        rows, scores, lengths = rest
        result[rows] = trees.log_partition(scores, lengths, *kind)
    return result


def marginals(scores: Tensor, lengths: Tensor | None, kind: Kind) -> Tensor:
    """`(batch, n, n + 1)`."""
    batch = Batch(scores, lengths)
    out = np.zeros_like(batch.values)

    def work(first: int, last: int) -> None:
        room = batch.scratch("marginals", first, kind)
        kernels.marginals(batch.values, batch.sizes, batch.order, first, last, *kind, room, out, batch.status, batch.cancelled)

    batch.run(work, 1.4 if kind[0] else 0.9)
    if rest := batch.rest(kind):
        rows, those, lengths = rest
        out[rows] = trees.marginals(those, lengths, *kind)
    return torch.from_numpy(out).to(scores.dtype)


def marginals_derivative(scores: Tensor, lengths: Tensor | None, direction: Tensor, kind: Kind) -> Tensor:
    """The derivative of the marginals along `direction (batch, n, n + 1)`."""
    batch = Batch(scores, lengths)
    directions, out = _array(direction.to(scores.dtype)), np.zeros_like(batch.values)

    def work(first: int, last: int) -> None:
        room = batch.scratch("marginals_derivative", first, kind)
        kernels.marginals_derivative(
            batch.values, directions, batch.sizes, batch.order, first, last, *kind, room, out, batch.status, batch.cancelled
        )

    batch.run(work, 3.3 if kind[0] else 1.4)
    if rest := batch.rest(kind):
        rows, those, lengths = rest
        out[rows] = trees.marginals_derivative(those, lengths, direction[rows], *kind)
    return torch.from_numpy(out).to(scores.dtype)


def sample(scores: Tensor, lengths: Tensor | None, seeds: Tensor, kind: Kind) -> Tensor:
    """The heads of drawn trees, `(samples, batch, n)`, one for each seed of `seeds (samples, batch)`."""
    batch = Batch(scores, lengths)
    heads = np.full((len(seeds), *batch.values.shape[:2]), batch.values.shape[2], np.int64)
    states = seeds.contiguous().numpy().view(np.uint64)

    def work(first: int, last: int) -> None:
        room = batch.scratch("sample", first, kind)
        kernels.sample(
            batch.values, states, batch.sizes, batch.order, first, last, *kind, room, heads, batch.status, batch.cancelled
        )

    batch.run(work, 0.9 * len(seeds))
    result = torch.from_numpy(heads)
    if rest := batch.rest(kind):
        rows, scores, lengths = rest
        result[:, rows] = trees.sample(scores, lengths, seeds[:, rows], *kind)
    return result


def sparsemap(
    scores: Tensor, lengths: Tensor | None, start: Tensor | None, kind: Kind, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The projection `(batch, n, n + 1)`; the heads of the trees that it is made of `(count, n)` (-1 beyond the sentence),
    their weights `(count,)` and how many of them each row has `(batch,)`; the duality gap and whether it converged `(batch,)`.

    `start (batch, n, n + 1)` are the arcs of a tree to begin with, in each row.
    """
    batch = Batch(scores, lengths)
    count, n = batch.values.shape[:2]
    starts = np.full((count, n), -1)
    if start is not None:
        arcs = _array(start)
        starts = arcs.argmax(2)
        inside = np.arange(n) < batch.sizes[:, None]
        one_each = (np.take_along_axis(arcs, starts[:, :, None], 2)[:, :, 0] == 1) & (np.abs(arcs).sum(2) == 1)
        if (inside & ~one_each).any():
            raise_invalid_start(int(np.flatnonzero((inside & ~one_each).any(1))[0]))
    point, gaps = np.zeros_like(batch.values), np.zeros(count)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def work(first: int, last: int) -> None:
        room = batch.scratch("sparsemap", first, kind)
        found.append(
            kernels.sparsemap(
                *(batch.values, starts, batch.sizes, batch.order, first, last, *kind, room),
                *(tol, max_iter, point, gaps, batch.status, batch.cancelled),
            )
        )

    batch.run(work, 80, longest=1000)
    if (batch.status == gather.BAD_START).any():
        raise_invalid_start(int(np.flatnonzero(batch.status == gather.BAD_START)[0]))
    heads, weights, rows = np.full((0, n), -1, np.int32), np.empty(0), np.empty(0, np.int64)
    if found:
        widest = [np.pad(part, ((0, 0), (0, n - part.shape[1])), constant_values=-1) for part, _, _ in found]
        heads, weights, rows = (np.concatenate(parts) for parts in (widest, [f[1] for f in found], [f[2] for f in found]))
    # By row, so that threads leave no trace.
    place = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=count)
    return (
        torch.from_numpy(point).to(scores.dtype),
        torch.from_numpy(heads[place].astype(np.int64)),
        torch.from_numpy(weights[place]),
        torch.from_numpy(counts),
        torch.from_numpy(gaps),
        torch.from_numpy(batch.status != gather.NOT_CONVERGED),
    )


def projection_from_marginals(
    scores: Tensor, targets: Tensor, lengths: Tensor | None, kind: Kind, tol: float = 1e-3, most_points: int = STEP_POINTS
) -> tuple[Tensor, Tensor]:
    """The projections of `targets`, which lie near the marginals of the scores, and which rows have one `(batch,)`."""
    batch = Batch(scores, lengths)
    aims, point = _array(targets.to(scores.dtype)), np.zeros_like(batch.values)

    def work(first: int, last: int) -> None:
        room = batch.scratch("marginals", first, kind)
        project_from_marginals(
            *(batch.values, aims, batch.sizes, batch.order, first, last, *kind, room),
            *(tol, most_points, point, batch.status, batch.cancelled),
        )

    batch.run(work, 40, longest=3)
    return torch.from_numpy(point).to(scores.dtype), torch.from_numpy(batch.status == gather.DONE)


def sparsemap_derivative(direction: Tensor, lengths: Tensor | None, heads: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """The change of the projection when the scores move along `direction (batch, n, n + 1)`.

    The Jacobian is symmetric, so this is the vector-Jacobian product as well. `heads`, `weights` and `counts` are those that
    `sparsemap` returned.
    """
    values = _array(direction)
    result = np.zeros_like(values)
    sizes = np.full(len(values), values.shape[1]) if lengths is None else lengths.contiguous().numpy()
    ends = np.concatenate([[0], np.cumsum(counts.numpy())])
    support, shares = heads.contiguous().numpy(), weights.contiguous().numpy()
    cancelled = np.zeros(1, np.bool_)

    def work(first: int, last: int) -> None:
        kernels.sparsemap_derivative(support, shares, ends, sizes, first, last, values, result, cancelled)

    if len(values):
        run_groups(work, np.diff(ends) ** 3.0 / 3 + np.diff(ends) ** 2 * values.shape[1], cancelled)
    return torch.from_numpy(result).to(direction.dtype)
