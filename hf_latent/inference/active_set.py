"""Euclidean projection onto the convex hull of a structure's vertices, with nothing but its argmax.

The active-set method of SparseMAP (Niculae et al. 2018, section 4 and supplement; Wolfe's minimum-norm point): keep a
few vertices A, find the best combination of them, ask the argmax for a vertex that would improve on it, and drop
vertices whose weight would turn negative. It ends at the exact solution after finitely many steps. The batch runs in
step, and rows that are done leave it.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_latent.inference.checks import check_count, raise_invalid_start, raise_no_structure

MAX_ITER = 3000

# Of the inner step of an estimator, relative to the step: an error of at most 0.15 % in the direction; or so many points of the
# polytope (or changes of them), after which half of real sentences are that exact, and the others have an error of some 3 %.
STEP_TOLERANCE, STEP_POINTS = 1e-6, 48

Oracle = Callable[[Tensor, Tensor], Tensor]


class ActiveSet(NamedTuple):
    """A projection as the weighted vertices that make it up; unused places have weight 0 and vertex 0."""

    vertices: Tensor  # (batch, places, size)
    weights: Tensor  # (batch, places)
    gap: Tensor  # (batch,) duality gap: half the squared distance to the true projection is at most this
    converged: Tensor  # (batch,) whether the gap was small enough in the end

    @property
    def point(self) -> Tensor:
        """The projection, `(batch, size)`."""
        return torch.einsum("bk,bkd->bd", self.weights, self.vertices)


class SparseMAPSolution(NamedTuple):
    """A projection, and how it came about.

    Attributes:
        point: `(batch, *event)`, the projection; no gradient.
        structures: `(batch, count, *event)`, the structures that it is made of; 0 where a row has fewer.
        weights: `(batch, count)`, positive, summing to 1 in each row; 0 where a row has fewer.
        gap: `(batch,)`, the duality gap: half the squared distance to the true projection is at most this.
        converged: `(batch,)`, False where `max_iter` was reached before the gap was small enough. (Where scores are so large
            that rounding hides what is left to gain, 1e13 and more, it is True as soon as no vertex is new.)
    """

    point: Tensor
    structures: Tensor
    weights: Tensor
    gap: Tensor
    converged: Tensor


def default_tol(dtype: torch.dtype) -> float:
    """A duality gap that shows in no more than the last digits of the result."""
    return 1e-10 if dtype == torch.float64 else 1e-6


def check_stopping(tol: float | None, max_iter: int, scores: object) -> float:
    """The tolerance to use; raises unless it is positive and there is an iteration at least."""
    if tol is None:
        tol = default_tol(scores.dtype if isinstance(scores, Tensor) else torch.float32)
    if isinstance(tol, bool) or not isinstance(tol, (int, float)) or not 0 < tol < float("inf"):
        raise ValueError(f"`tol` must be a positive number, got {tol!r}.")
    check_count("max_iter", max_iter)
    return float(tol)


def warn_of_gap(max_iter: int) -> None:
    """Says that some rows did not converge (always in the same words, so that Python shows them once)."""
    warnings.warn(
        f"SparseMAP did not converge in {max_iter} iterations on some rows: the result lies in the polytope but is not "
        "exact. Raise `max_iter` or `tol`; scores that are nearly equal have solutions of very many structures.",
        stacklevel=2,
    )


def project(
    scores: Tensor, allowed: Tensor, oracle: Oracle, tol: float, max_iter: int = MAX_ITER, start: Tensor | None = None
) -> ActiveSet:
    """argmin over mu in M of |mu - scores|^2 / 2, for float64 `scores (batch, size)`; M is what has no part but the `allowed`.

    `oracle(scores, rows)` returns 0/1 vertices that maximize the scores given (-inf where they are not `allowed`), which belong
    to the rows named of the batch. Begins at the vertices `start (batch, size)`, if given. Stops at a duality gap of `tol`
    (times the squared distance from the scores to the first vertex, if that is below 1), or where the argmax finds no vertex
    that is new. Each iteration costs one argmax and one linear system in the number of vertices.

    Raises:
        ValueError: a row in which all vertices are forbidden, or a `start` that is.
    """
    batch = len(scores)
    rows = torch.arange(batch, device=scores.device)
    first = _first_vertices(scores, allowed, oracle, start)
    scores = scores.masked_fill(~allowed, 0.0)  # where every vertex is 0: this keeps it out of the sums
    state = ActiveSet(
        first[:, None],
        scores.new_ones(batch, 1),
        scores.new_full((batch,), torch.inf),
        torch.zeros(batch, dtype=torch.bool, device=scores.device),
    )
    used = torch.ones_like(state.weights, dtype=torch.bool)
    # The first guess may be next to the solution (a small step away from a vertex): the error is to be small beside that
    # distance, and no smaller than rounding allows.
    distance = (scores - state.point).square().sum(1)
    stop_at = tol * distance.clamp(max=1)
    largest = (first * scores.abs()).amax(1)  # of the scores that have been in a vertex
    finished: list[tuple[Tensor, ActiveSet]] = []
    for _ in range(max_iter):
        if not len(rows):
            break
        target = solve(state.vertices, used, torch.einsum("bkd,bd->bk", state.vertices, scores), 1.0)
        # A vertex that depends on the others: the scores are so large that rounding made it look new. Stay and stop.
        dependent = ~((target.sum(1) - 1).abs() < 1e-6)
        target = torch.where(dependent[:, None], state.weights, target)
        weights, used, blocked = _step_towards(target, state.weights, used)
        state = state._replace(weights=weights)
        # At the best combination of these vertices: is there a better one beyond them?
        rest = scores - state.point
        vertex = oracle(rest.masked_fill(~allowed, -torch.inf), rows)
        gap = (rest * (vertex - state.point)).sum(1)
        largest = torch.maximum(largest, (vertex * scores.abs()).amax(1))
        enough = stop_at + 1e-16 * scores.shape[1] * largest
        known = ((state.vertices - vertex[:, None]).abs().amax(2) == 0) & used
        done = ~blocked & ((gap <= enough) | known.any(1) | dependent)
        state = state._replace(gap=torch.where(blocked, state.gap, gap.clamp(min=0)))
        state = state._replace(converged=done)
        if done.any():
            finished.append((rows[done], ActiveSet(*(part[done] for part in state))))
            state = ActiveSet(*(part[~done] for part in state))
            rows, scores, allowed, used = rows[~done], scores[~done], allowed[~done], used[~done]
            stop_at, largest = stop_at[~done], largest[~done]
            vertex, blocked = vertex[~done], blocked[~done]
        state, used = _add(state, used, vertex, ~blocked)
    if len(rows):
        finished.append((rows, state))
    return _gather(finished, batch, scores)


def _first_vertices(scores: Tensor, allowed: Tensor, oracle: Oracle, start: Tensor | None) -> Tensor:
    rows = torch.arange(len(scores), device=scores.device)
    first = oracle(scores.masked_fill(~allowed, -torch.inf), rows) if start is None else start
    wrong = ((first != 0) & ~allowed).any(1)
    if wrong.any():
        (raise_no_structure if start is None else raise_invalid_start)(int(wrong.nonzero()[0]))
    return first


def sparsemap(
    scores: Tensor, allowed: Tensor, oracle: Oracle, tol: float, max_iter: int, start: Tensor | None = None
) -> Tensor:
    """The projection `(batch, size)` of float64 `scores`, differentiable once; warns where it did not converge."""
    if not scores.numel():
        return scores.clone()
    return _SparseMAP.apply(scores, allowed, oracle, tol, max_iter, start)


class _SparseMAP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, allowed: Tensor, oracle: Oracle, tol: float, max_iter: int, start: Tensor | None
    ) -> Tensor:
        solution = project(scores, allowed, oracle, tol, max_iter, start)
        if not solution.converged.all():
            warn_of_gap(max_iter)
        ctx.save_for_backward(solution.vertices, solution.weights)
        return solution.point.clamp(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        vertices, weights = ctx.saved_tensors
        return derivative(vertices, weights, grad), None, None, None, None, None


def derivative(vertices: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
    """The change of a projection when the scores move along `direction (batch, size)`; the Jacobian is symmetric."""
    moved = torch.einsum("bkd,bd->bk", vertices, direction)
    return torch.einsum("bk,bkd->bd", solve(vertices, weights > 0, moved, 0.0), vertices)


def solve(vertices: Tensor, used: Tensor, target: Tensor, total: float) -> Tensor:
    """w with sum(w) = `total` that minimizes |A w|^2 / 2 - w·target over the used vertices A; 0 elsewhere.

    With target = A·s and total 1 this is the projection of s onto the affine hull of A. With target = A·v and total 0
    it is the direction in which the projection moves when s moves along v: A w is the Jacobian times v, in closed form
    A (G - G11ᵀG / 1ᵀG1) Aᵀ v with G the inverse of the Gram matrix. Where the vertices are not independent, the result
    is not meaningful (and may not be finite).
    """
    places = vertices.shape[1]
    ones = used.to(vertices)
    system = vertices.new_zeros(len(vertices), places + 1, places + 1)
    system[:, :places, :places] = vertices @ vertices.mT * (ones[:, :, None] * ones[:, None, :]) + torch.diag_embed(1 - ones)
    system[:, :places, places] = system[:, places, :places] = ones
    right = torch.cat([target * ones, target.new_full((len(target), 1), total)], dim=1)
    return torch.linalg.solve_ex(system, right)[0][:, :places] * ones


def _step_towards(target: Tensor, weights: Tensor, used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Go from `weights` to `target` until the first weight would turn negative; drop that vertex (row is blocked)."""
    shrinking = used & (target <= 0) & (weights - target > 0)
    share = torch.where(shrinking, weights / (weights - target).where(shrinking, 1.0), torch.inf)
    first, place = share.min(dim=1)
    blocked = first < 1
    moved = torch.lerp(weights, target, first.clamp(max=1)[:, None])
    dropped = torch.zeros_like(used).scatter(1, place[:, None], blocked[:, None])
    used = used & ~dropped
    return moved.clamp(min=0) * used, used, blocked


def _add(state: ActiveSet, used: Tensor, vertex: Tensor, wanted: Tensor) -> tuple[ActiveSet, Tensor]:
    """Put `vertex` into the first free place of the rows that want one, at weight 0."""
    if used.all(1).logical_and(wanted).any():
        state = state._replace(
            vertices=torch.nn.functional.pad(state.vertices, (0, 0, 0, 1)),
            weights=torch.nn.functional.pad(state.weights, (0, 1)),
        )
        used = torch.nn.functional.pad(used, (0, 1))
    rows = wanted.nonzero()[:, 0]
    place = used.int().argmin(1)[rows]
    vertices, used = state.vertices.clone(), used.clone()
    vertices[rows, place] = vertex[rows]
    used[rows, place] = True
    return state._replace(vertices=vertices), used


def _gather(finished: list[tuple[Tensor, ActiveSet]], batch: int, scores: Tensor) -> ActiveSet:
    places = max((part.weights.shape[1] for _, part in finished), default=1)
    result = ActiveSet(
        scores.new_zeros(batch, places, scores.shape[1]),
        scores.new_zeros(batch, places),
        scores.new_zeros(batch),
        torch.zeros(batch, dtype=torch.bool, device=scores.device),
    )
    for rows, part in finished:
        count = part.weights.shape[1]
        result.vertices[rows, :count] = part.vertices * (part.weights > 0)[:, :, None]
        result.weights[rows, :count] = part.weights
        result.gap[rows] = part.gap
        result.converged[rows] = part.converged
    return result
