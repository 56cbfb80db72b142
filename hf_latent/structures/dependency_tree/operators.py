"""The one door to the algorithms on trees: checks what comes in, picks the implementation, supplies the gradients.

Scores have the one convention of the library: `scores[b, i, j]`, shape `(batch, n, n + 1)`, scores column j as the head
of word i; column 0 is ROOT, column j >= 1 is word j - 1. Self arcs and everything beyond `lengths[b]` are ignored on
input, and exactly 0 on output and in gradients; so are arcs that score -inf, which are forbidden. Inference runs in float64,
whatever comes in.

Each operation is a custom operator of torch (`torch.ops.hf_latent.…`), so that `torch.compile` and whatever else traces a
model sees one opaque step. Compiled kernels answer on the CPU, the reference everywhere else. What can be told from
shapes and dtypes is checked before the operator is called (so that tracing a model shows it), and again within it, as anybody
may call one; values are checked within it alone.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from hf_latent.inference import active_set
from hf_latent.inference.checks import (
    check_count,
    check_finite,
    check_floating,
    check_lengths,
    check_like,
    check_range,
    check_start,
    checked_values,
    describe,
    full_lengths,
    in_reach,
    is_eager,
    raise_invalid_start,
    raise_no_structure,
)
from hf_latent.inference.k_best import best_trees
from hf_latent.inference.random import draw_seeds
from hf_latent.structures.dependency_tree.cpu import operations as batch
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.structures.dependency_tree.reference import trees
from hf_latent.structures.dependency_tree.reference.masking import arc_mask, word_mask


def check_shapes(scores: object, lengths: object = None) -> tuple[Tensor, Tensor | None]:
    """`scores` and `lengths` of right types and shapes; their values are checked by the operators.

    Raises:
        TypeError: scores that are no floating-point tensor, lengths that are not integers.
        ValueError: scores not of shape `(batch, n, n + 1)`, lengths not of shape `(batch,)`.
    """
    scores, lengths = _shaped(scores, lengths)
    if is_eager() and forward_ad.unpack_dual(scores).tangent is not None:
        # torch's operators in Python have backward derivatives only, and would give 0 here.
        raise NotImplementedError(
            "Trees have no forward-mode derivatives (`torch.func.jvp`, `torch.autograd.forward_ad`): use `backward()` or "
            "`torch.autograd.grad`."
        )
    if is_eager() and torch.func.debug_unwrap(scores) is not scores:
        raise NotImplementedError(
            "Trees cannot be transformed by `torch.func` (`grad`, `vjp`, `jacrev`, `hessian`, `vmap`): use `backward()`, "
            "`torch.autograd.grad` or `torch.autograd.functional`, and put what would be mapped over into the batch."
        )
    return scores, lengths


def _shaped(scores: object, lengths: object, name: str = "scores") -> tuple[Tensor, Tensor | None]:
    scores = check_floating(scores, "(batch, n, n + 1)", 3, name)
    if scores.shape[2] != scores.shape[1] + 1:
        raise ValueError(
            f"`{name}` must have shape (batch, n, n + 1): a row for each word, a column for ROOT (first) and each word as a "
            f"head; got {describe(scores)}. `hf_latent.structures.dependency_tree.conversions` turns other "
            "layouts into this one."
        )
    return scores, None if lengths is None else check_lengths(lengths, scores.shape[0], scores.device)


def check_tree_scores(scores: object, lengths: object = None) -> tuple[Tensor, Tensor]:
    """`scores`, -inf for all that is forbidden, and int64 `lengths`, of right types, shapes and values.

    Raises:
        TypeError, ValueError: see `check_shapes`.
        ValueError: scores that are NaN or inf where they count; lengths outside 0 to n.
    """
    scores, lengths = check_shapes(scores, lengths)
    lengths = full_lengths(lengths, scores)
    if is_eager():  # else, the operators will tell
        check_range(lengths, scores.shape[1])
    return checked_values(scores, arc_mask(lengths, scores.shape[1])), lengths


def possible_arcs(scores: Tensor, lengths: Tensor) -> Tensor:
    """True where an arc may be: within the sentence, and not forbidden by its score."""
    return in_reach(scores, arc_mask(lengths, scores.shape[1]))


def _check_values(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    lengths = full_lengths(lengths, scores)
    check_range(lengths, scores.shape[1])
    check_finite(scores, arc_mask(lengths, scores.shape[1]))
    missing = ~trees.has_tree(scores, lengths, projective, single_root)
    if missing.any():
        raise_no_structure(int(missing.nonzero()[0]))
    return lengths


def tree_argmax(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    """The arcs of a highest-scoring tree. No gradient (it is 0 wherever it exists)."""
    scores, lengths = check_shapes(scores, lengths)
    return _argmax(scores.detach(), lengths, projective, single_root)


def tree_log_partition(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    """log of the sum over all trees of exp(score), `(batch,)`; differentiable twice, its gradient being the marginals."""
    scores, lengths = check_shapes(scores, lengths)
    return _log_partition(scores, lengths, projective, single_root)


def tree_marginals(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    """The probability of each arc; differentiable once."""
    scores, lengths = check_shapes(scores, lengths)
    return _marginals(scores, lengths, projective, single_root)


def tree_sample(
    scores: Tensor,
    lengths: Tensor | None,
    projective: bool,
    single_root: bool,
    num_samples: int,
    generator: torch.Generator | None,
) -> Tensor:
    """The arcs of trees drawn with probability ∝ exp(score), `(num_samples, batch, n, n + 1)`; no gradient."""
    scores, lengths = check_shapes(scores, lengths)
    check_count("num_samples", num_samples)
    seeds = draw_seeds((num_samples, scores.shape[0]), generator, scores.device)
    return _sample(scores.detach(), lengths, seeds, projective, single_root)


def tree_top_k(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool, k: int) -> tuple[Tensor, Tensor]:
    """The arcs of the k best trees, `(batch, k, n, n + 1)`, and their scores, `(batch, k)`; no gradient."""
    scores, lengths = check_shapes(scores, lengths)
    check_count("k", k)
    return _top_k(scores.detach(), lengths, projective, single_root, k)


def tree_sparsemap(
    scores: Tensor,
    lengths: Tensor | None,
    projective: bool,
    single_root: bool,
    tol: float | None,
    max_iter: int,
    start: Tensor | None,
) -> Tensor:
    """The Euclidean projection onto the convex hull of all trees; differentiable once."""
    return _checked_sparsemap(scores, lengths, projective, single_root, tol, max_iter, start)[0]


def tree_sparsemap_solution(
    scores: Tensor,
    lengths: Tensor | None,
    projective: bool,
    single_root: bool,
    tol: float | None,
    max_iter: int,
    start: Tensor | None,
) -> active_set.SparseMAPSolution:
    """The projection with all that is known about it; no gradient."""
    point, heads, weights, counts, gaps, converged = _checked_sparsemap(
        scores.detach() if isinstance(scores, Tensor) else scores, lengths, projective, single_root, tol, max_iter, start
    )
    vertices, shares = _unpacked(heads, weights, counts)
    return active_set.SparseMAPSolution(point, vertices.to(point.dtype), shares.to(point.dtype), gaps, converged)


def tree_projection_from(targets: Tensor, start: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    """The projection of `targets`, begun at the trees `start`; no gradient."""
    targets, lengths = check_shapes(targets, lengths)
    return _projection_from(
        targets.detach(), check_start(start, targets).detach().to(targets.dtype), lengths, projective, single_root
    )


def tree_projection_from_marginals(
    targets: Tensor, scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool
) -> Tensor:
    """The projection of `targets`, which lie near the marginals of the scores; no gradient."""
    scores, lengths = check_shapes(scores, lengths)
    if not isinstance(targets, Tensor) or targets.shape != scores.shape:
        raise ValueError(
            f"`targets` must be a tensor of the shape of `scores`, {tuple(scores.shape)}, got {describe(targets)}."
        )
    return _projection_from_marginals(targets.detach(), scores.detach(), lengths, projective, single_root)


def _checked_sparsemap(
    scores: Tensor,
    lengths: Tensor | None,
    projective: bool,
    single_root: bool,
    tol: float | None,
    max_iter: int,
    start: Tensor | None,
) -> Any:
    tol = active_set.check_stopping(tol, max_iter, scores)
    scores, lengths = check_shapes(scores, lengths)
    if start is not None:
        start = check_start(start, scores).detach().to(scores.dtype)
    return _sparsemap(scores, lengths, start, projective, single_root, tol, max_iter)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a log-partition: scores that fit into float16 can have one that does not."""
    return torch.promote_types(dtype, torch.float32)


def _has_kernels(scores: Tensor) -> bool:
    return scores.device.type == "cpu"


def _arcs(heads: Tensor, dtype: torch.dtype) -> Tensor:
    """0/1 arcs `(..., n, n + 1)` from `heads (..., n)`, which are n + 1 (a column that is cut off) beyond the sentence."""
    n = heads.shape[-1]
    arcs = torch.zeros((*heads.shape, n + 2), dtype=dtype, device=heads.device)
    return arcs.scatter_(-1, heads[..., None], 1.0)[..., :-1].contiguous()


# --- the operators ---


@torch.library.custom_op("hf_latent::tree_argmax", mutates_args=())
def _argmax(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    scores, lengths = _shaped(scores, lengths)
    if _has_kernels(scores):
        return batch.argmax(scores, lengths, (projective, single_root))
    lengths = _check_values(scores, lengths, projective, single_root)
    return trees.argmax(scores, lengths, projective, single_root).to(scores.dtype)


@torch.library.custom_op("hf_latent::tree_log_partition", mutates_args=())
def _log_partition(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    scores, lengths = _shaped(scores, lengths)
    if _has_kernels(scores):
        value = batch.log_partition(scores, lengths, (projective, single_root))
    else:
        value = trees.log_partition(scores, _check_values(scores, lengths, projective, single_root), projective, single_root)
    return value.to(at_least_float32(scores.dtype))


@_log_partition.register_fake
def _(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    scores, _ = _shaped(scores, None)
    return scores.new_empty(scores.shape[0], dtype=at_least_float32(scores.dtype))


@torch.library.custom_op("hf_latent::tree_marginals", mutates_args=())
def _marginals(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    scores, lengths = _shaped(scores, lengths)
    if _has_kernels(scores):
        return batch.marginals(scores, lengths, (projective, single_root))
    lengths = _check_values(scores, lengths, projective, single_root)
    return trees.marginals(scores, lengths, projective, single_root).to(scores.dtype)


@torch.library.custom_op("hf_latent::tree_marginals_vjp", mutates_args=())
def _marginals_vjp(scores: Tensor, lengths: Tensor | None, grad: Tensor, projective: bool, single_root: bool) -> Tensor:
    scores, lengths = _shaped(scores, lengths)
    check_like(grad, scores.shape, scores, "grad")
    if _has_kernels(scores):
        return batch.marginals_derivative(scores, lengths, grad, (projective, single_root))
    lengths = full_lengths(lengths, scores)
    return trees.marginals_derivative(scores, lengths, grad, projective, single_root).to(scores.dtype)


@torch.library.custom_op("hf_latent::tree_sample", mutates_args=())
def _sample(scores: Tensor, lengths: Tensor | None, seeds: Tensor, projective: bool, single_root: bool) -> Tensor:
    scores, lengths = _shaped(scores, lengths)
    check_like(seeds, (None, scores.shape[0]), scores, "seeds", torch.int64)
    if _has_kernels(scores):
        heads = batch.sample(scores, lengths, seeds, (projective, single_root))
    else:
        heads = trees.sample(scores, _check_values(scores, lengths, projective, single_root), seeds, projective, single_root)
    return _arcs(heads, scores.dtype)


@_sample.register_fake
def _(scores: Tensor, lengths: Tensor | None, seeds: Tensor, projective: bool, single_root: bool) -> Tensor:
    scores, _ = _shaped(scores, None)
    check_like(seeds, (None, scores.shape[0]), scores, "seeds", torch.int64)
    return scores.new_empty(seeds.shape[0], *scores.shape)


@torch.library.custom_op("hf_latent::tree_top_k", mutates_args=())
def _top_k(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool, k: int) -> tuple[Tensor, Tensor]:
    scores, lengths = _shaped(scores, lengths)
    check_count("k", k)
    lengths = _check_values(scores, lengths, projective, single_root)
    kind = projective, single_root

    def argmax(some: Tensor) -> Tensor:
        if _has_kernels(some):
            return batch.argmax(some, None, kind, required=False)
        whole = full_lengths(None, some)
        return trees.argmax(some, whole, *kind) * trees.has_tree(some, whole, *kind)[:, None, None]

    heads, values = best_trees(scores, possible_arcs(scores, lengths), lengths, argmax, k)
    return _arcs(heads, scores.dtype), values.to(at_least_float32(scores.dtype))


@_top_k.register_fake
def _(scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool, k: int) -> tuple[Tensor, Tensor]:
    scores, _ = _shaped(scores, None)
    size, n = scores.shape[:2]
    return scores.new_empty(size, k, n, n + 1), scores.new_empty(size, k, dtype=at_least_float32(scores.dtype))


@torch.library.custom_op("hf_latent::tree_sparsemap", mutates_args=())
def _sparsemap(
    scores: Tensor,
    lengths: Tensor | None,
    start: Tensor | None,
    projective: bool,
    single_root: bool,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The projection; the heads, weights and numbers (in each row) of the trees it is made of; its gap, and if it converged."""
    scores, lengths = _shaped(scores, lengths)
    tol = active_set.check_stopping(tol, max_iter, scores)
    if start is not None:
        check_like(start, scores.shape, scores, "start")
    if _has_kernels(scores):
        solution = batch.sparsemap(scores, lengths, start, (projective, single_root), tol, max_iter)
    else:
        lengths = _check_values(scores, lengths, projective, single_root)
        solution = _sparsemap_elsewhere(scores, lengths, start, projective, single_root, tol, max_iter)
    if not solution[-1].all():
        active_set.warn_of_gap(max_iter)
    return solution[0].to(scores.dtype), *solution[1:]


@_sparsemap.register_fake
def _(
    scores: Tensor,
    lengths: Tensor | None,
    start: Tensor | None,
    projective: bool,
    single_root: bool,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    scores, _ = _shaped(scores, None)
    size, n = scores.shape[:2]
    count = torch.library.get_ctx().new_dynamic_size()
    return (
        _like_the_first(scores),
        scores.new_empty((count, n), dtype=torch.int64),
        scores.new_empty((count,), dtype=torch.float64),
        scores.new_empty((size,), dtype=torch.int64),
        scores.new_empty((size,), dtype=torch.float64),
        scores.new_empty((size,), dtype=torch.bool),
    )


@torch.library.custom_op("hf_latent::tree_projection_from", mutates_args=())
def _projection_from(targets: Tensor, start: Tensor, lengths: Tensor | None, projective: bool, single_root: bool) -> Tensor:
    targets, lengths = _shaped(targets, lengths, "targets")
    check_like(start, targets.shape, targets, "start")
    if _has_kernels(targets):
        limits = active_set.STEP_TOLERANCE, active_set.STEP_POINTS
        return batch.sparsemap(targets, lengths, start, (projective, single_root), *limits)[0]
    limits = active_set.STEP_TOLERANCE, active_set.MAX_ITER
    return _sparsemap(targets, lengths, start, projective, single_root, *limits)[0]


@torch.library.custom_op("hf_latent::tree_projection_from_marginals", mutates_args=())
def _projection_from_marginals(
    targets: Tensor, scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool
) -> Tensor:
    scores, lengths = _shaped(scores, lengths)
    check_like(targets, scores.shape, scores, "targets")
    point, found = torch.empty_like(scores), torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    if _has_kernels(scores):
        check_finite(targets, arc_mask(full_lengths(lengths, scores), scores.shape[1]), "targets")
        point, found = batch.projection_from_marginals(scores, targets, lengths, (projective, single_root))
    if not found.all():
        rest = (~found).nonzero()[:, 0]
        own = None if lengths is None else lengths[rest]
        first = _argmax(scores[rest], own, projective, single_root)
        limits = active_set.STEP_TOLERANCE, active_set.MAX_ITER
        point[rest] = _sparsemap(targets[rest], own, first, projective, single_root, *limits)[0]
    return point.to(targets.dtype)


@torch.library.custom_op("hf_latent::tree_sparsemap_vjp", mutates_args=())
def _sparsemap_vjp(grad: Tensor, lengths: Tensor | None, heads: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    grad, lengths = _shaped(grad, lengths, "grad")
    size, n = grad.shape[:2]
    check_range(full_lengths(lengths, grad), n)
    check_like(heads, (None, n), grad, "heads", torch.int64)
    check_like(weights, (len(heads),), grad, "weights", torch.float64)
    check_like(counts, (size,), grad, "counts", torch.int64)
    if (counts < 0).any() or counts.sum() != len(heads):
        raise ValueError(
            f"`counts` must say how many of the {len(heads)} trees in `heads` each row has, got a sum of {int(counts.sum())}."
        )
    if heads.numel() and not (heads.amin() >= -1 and heads.amax() <= n):
        raise ValueError(f"`heads` must lie between -1 (no word) and {n}, got some from {heads.min()} to {heads.max()}.")
    if _has_kernels(grad):
        return batch.sparsemap_derivative(grad, lengths, heads, weights, counts)
    vertices, shares = _unpacked(heads, weights, counts)
    return active_set.derivative(vertices.double().flatten(2), shares, grad.double().flatten(1)).view(grad.shape).to(grad.dtype)


def _like_the_first(first: Tensor, *_: Any) -> Tensor:
    first = _shaped(first, None)[0]
    return torch.empty_like(first, memory_format=torch.contiguous_format)


for _operator in (_argmax, _marginals, _marginals_vjp, _sparsemap_vjp, _projection_from, _projection_from_marginals):
    _operator.register_fake(_like_the_first)


def _sparsemap_elsewhere(
    scores: Tensor,
    lengths: Tensor,
    start: Tensor | None,
    projective: bool,
    single_root: bool,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """By the general active-set method and the reference argmax."""
    n = scores.shape[1]

    def oracle(flat: Tensor, rows: Tensor) -> Tensor:
        return trees.argmax(flat.view(-1, n, n + 1), lengths[rows], projective, single_root).flatten(1)

    if start is not None:
        heads = start.argmax(2)
        same = (start == torch.nn.functional.one_hot(heads, n + 1)).all(2) | ~word_mask(lengths, n)
        valid = is_tree(heads, projective, single_root, lengths) & same.all(1)
        if not valid.all():
            raise_invalid_start(int((~valid).nonzero()[0]))
    first = None if start is None else start.double().flatten(1)
    allowed = possible_arcs(scores, lengths).flatten(1)
    found = active_set.project(scores.double().flatten(1), allowed, oracle, tol, max_iter, first)
    used = found.weights > 0
    heads = found.vertices.view(*found.weights.shape, n, n + 1).argmax(3)
    heads = heads.masked_fill(torch.arange(n, device=scores.device) >= lengths[:, None, None], -1)
    point = found.point.view(scores.shape).clamp(0, 1)
    return point, heads[used], found.weights[used], used.sum(1), found.gap, found.converged


def _unpacked(heads: Tensor, weights: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The arcs `(batch, places, n, n + 1)` and the weights `(batch, places)` of trees that are listed row by row."""
    n = heads.shape[1]
    rows = torch.repeat_interleave(torch.arange(len(counts), device=heads.device), counts)
    places = torch.arange(len(rows), device=heads.device) - (counts.cumsum(0) - counts)[rows]
    most = int(counts.max()) if len(counts) else 0
    vertices = torch.zeros(len(counts), most, n, n + 1, device=heads.device)
    shares = weights.new_zeros(len(counts), most)
    vertices[rows, places] = _arcs(heads.where(heads >= 0, n + 1), vertices.dtype)
    shares[rows, places] = weights
    return vertices, shares


# --- their gradients ---


def _save_scores(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    scores, lengths, *kind = inputs
    ctx.save_for_backward(scores, lengths)
    ctx.kind = kind


def _log_partition_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    scores, lengths = ctx.saved_tensors
    return (_marginals(scores, lengths, *ctx.kind) * grad[:, None, None]).to(scores.dtype), None, None, None


def _marginals_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    scores, lengths = ctx.saved_tensors
    return _marginals_vjp(scores, lengths, grad, *ctx.kind), None, None, None


def _save_support(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, heads, weights, counts, gaps, _ = output
    ctx.save_for_backward(inputs[1], heads, weights, counts)
    ctx.mark_non_differentiable(weights, gaps)


def _sparsemap_backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return _sparsemap_vjp(grad, *ctx.saved_tensors), None, None, None, None, None, None


_log_partition.register_autograd(_log_partition_backward, setup_context=_save_scores)
_marginals.register_autograd(_marginals_backward, setup_context=_save_scores)
_sparsemap.register_autograd(_sparsemap_backward, setup_context=_save_support)
