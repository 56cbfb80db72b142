"""The one door to the algorithms on trees: checks what comes in, picks the implementation, supplies the gradients.

Scores have the one convention of the library: `scores[b, i, j]`, shape `(batch, n, n + 1)`, scores column j as the head
of word i; column 0 is ROOT, column j >= 1 is word j - 1. Self arcs and everything beyond `lengths[b]` are ignored on
input, and exactly 0 on output and in gradients. Inference runs in float64, whatever comes in.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_latent.inference import active_set
from hf_latent.inference.checks import check_finite, check_floating, check_lengths, describe
from hf_latent.inference.cpu import batch
from hf_latent.inference.reference import arborescence, eisner, matrix_tree
from hf_latent.inference.reference.masking import arc_mask, normalize


def check_tree_scores(scores: object, lengths: object = None) -> tuple[Tensor, Tensor]:
    """`scores` and `lengths` ready for inference.

    Raises:
        TypeError: scores that are no floating-point tensor, lengths that are not integers.
        ValueError: scores not of shape `(batch, n, n + 1)` or not finite where they count; lengths outside 0 to n.
    """
    scores = check_floating(scores, "(batch, n, n + 1)", 3)
    if scores.shape[2] != scores.shape[1] + 1:
        raise ValueError(
            f"`scores` must have shape (batch, n, n + 1): a row for each word, a column for ROOT (first) and each word as a "
            f"head; got {describe(scores)}. `hf_latent.structures.conversions` turns other layouts into this one."
        )
    lengths = check_lengths(lengths, scores.shape[0], scores.shape[1], scores.device)
    check_finite(scores, arc_mask(lengths, scores.shape[1]))
    return scores, lengths


def _sum_algorithm(projective: bool) -> ModuleType:
    return eisner if projective else matrix_tree


def _best(scores: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
    return (eisner if projective else arborescence).argmax(scores, lengths, single_root)


def tree_argmax(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    """The arcs of a highest-scoring tree. No gradient (it is 0 wherever it exists)."""
    scores, lengths = check_tree_scores(scores, lengths)
    with torch.no_grad():
        if scores.device.type == "cpu":
            heads = batch.best_heads(scores, lengths, projective, single_root)
            arcs = scores.new_zeros(*scores.shape[:2], scores.shape[2] + 1)  # a last column for words beyond the sentence
            return arcs.scatter_(2, heads[:, :, None], 1.0)[:, :, :-1]
        return _best(normalize(scores, lengths)[0], lengths, projective, single_root).to(scores.dtype)


def tree_log_partition(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    """log of the sum over all trees of exp(score), `(batch,)`; differentiable, its gradient being the marginals."""
    scores, lengths = check_tree_scores(scores, lengths)
    return _LogPartition.apply(scores, lengths, projective, single_root)


def tree_marginals(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    """The probability of each arc; differentiable once."""
    scores, lengths = check_tree_scores(scores, lengths)
    return _Marginals.apply(scores, lengths, projective, single_root)


def tree_sparsemap(
    scores: Tensor,
    lengths: Tensor | None,
    projective: bool,
    single_root: bool,
    tolerance: float | None = None,
    max_iterations: int = active_set.MAX_ITERATIONS,
) -> Tensor:
    """The Euclidean projection onto the convex hull of all trees; differentiable once."""
    tolerance = _check_stopping(tolerance, max_iterations, scores)
    scores, lengths = check_tree_scores(scores, lengths)
    n = scores.shape[1]
    if scores.device.type == "cpu":
        return _SparseMAP.apply(scores, lengths, projective, single_root, tolerance, max_iterations)

    def oracle(flat: Tensor, rows: Tensor) -> Tensor:
        normalized, _ = normalize(flat.view(-1, n, n + 1), lengths[rows])
        return _best(normalized, lengths[rows], projective, single_root).flatten(1)

    # Every vertex is 0 where no arc may be, so the score there is irrelevant, and 0 keeps it out of the sums.
    flat = scores.double().masked_fill(~arc_mask(lengths, n), 0.0).flatten(1)
    return active_set.sparsemap(flat, oracle, tolerance, max_iterations).view(scores.shape).to(scores.dtype)


def _check_stopping(tolerance: float | None, max_iterations: int, scores: object) -> float:
    if tolerance is None:
        tolerance = active_set.default_tolerance(scores.dtype if isinstance(scores, Tensor) else torch.float32)
    if not 0 < tolerance < float("inf"):
        raise ValueError(f"`tolerance` must be a positive number, got {tolerance!r}.")
    if not isinstance(max_iterations, int) or max_iterations < 1:
        raise ValueError(f"`max_iterations` must be an integer of at least 1, got {max_iterations!r}.")
    return tolerance


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a log-partition: scores that fit into float16 can have one that does not."""
    return torch.promote_types(dtype, torch.float32)


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
        ctx.save_for_backward(scores, lengths)
        ctx.kind = projective, single_root
        normalized, offset = normalize(scores, lengths)
        value = _sum_algorithm(projective).log_partition(normalized, lengths, single_root) + offset
        return value.to(at_least_float32(scores.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scores, lengths = ctx.saved_tensors
        marginals = _Marginals.apply(scores, lengths, *ctx.kind)
        return (marginals * grad[:, None, None]).to(scores.dtype), None, None, None


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
        ctx.save_for_backward(scores, lengths)
        ctx.kind = projective, single_root
        normalized, _ = normalize(scores, lengths)
        marginals = _sum_algorithm(projective).marginals(normalized, lengths, single_root)
        return marginals.clamp(0, 1).to(scores.dtype)  # rounding only

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # The Jacobian is the Hessian of the log-partition and symmetric, so the vector-Jacobian product is the derivative
        # of the marginals along `grad`: the same sweep on dual numbers.
        scores, lengths = ctx.saved_tensors
        projective, single_root = ctx.kind
        normalized, _ = normalize(scores, lengths)
        direction = grad.double().masked_fill(~arc_mask(lengths, scores.shape[1]), 0.0)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(normalized, direction)
            marginals = _sum_algorithm(projective).marginals(dual, lengths, single_root)
            derivative = torch.autograd.forward_ad.unpack_dual(marginals).tangent
        if derivative is None:
            derivative = torch.zeros_like(normalized)
        return derivative.to(scores.dtype), None, None, None


class _SparseMAP(torch.autograd.Function):
    """On the CPU; elsewhere `active_set` does it with the argmax."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, lengths: Tensor, *options: Any) -> Tensor:
        point, ctx.supports = batch.sparsemap(scores, lengths, *options)
        return point.to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return batch.sparsemap_derivative(ctx.supports, grad).to(grad.dtype), None, None, None, None, None
