"""The algorithms of this folder behind one set of functions: trees of each kind, from checked scores of any dtype.

All but `has_tree` are for sentences that have one.
"""

from types import ModuleType

import torch
from torch import Tensor

from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.structures.dependency_tree.reference import arborescence, eisner, matrix_tree
from hf_latent.structures.dependency_tree.reference.masking import FORBIDDEN, arc_mask, normalize, word_mask


def _sums(projective: bool) -> ModuleType:
    return eisner if projective else matrix_tree


def best_arcs(normalized: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The arcs of a highest-scoring tree, from normalized scores (in which arcs may be forbidden)."""
    return (eisner if projective else arborescence).argmax(normalized, lengths, single_root)


def has_tree(scores: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
    """Which sentences have a tree, `(batch,)`: not all are forbidden."""
    normalized, _ = normalize(scores, lengths)
    if not (arc_mask(lengths, scores.shape[1]) & (normalized == FORBIDDEN)).any():
        return torch.ones_like(lengths, dtype=torch.bool)
    arcs = best_arcs(normalized, lengths, projective, single_root)
    forbidden = ((arcs > 0) & (normalized == FORBIDDEN)).flatten(1).any(1)
    return ~forbidden & ~(single_root & (arcs[:, :, 0].sum(1) > 1))


def argmax(scores: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The arcs of a highest-scoring tree, `(batch, n, n + 1)`, in float64 like all that follows."""
    return best_arcs(normalize(scores, lengths)[0], lengths, projective, single_root)


def log_partition(scores: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
    """log Z, `(batch,)`."""
    normalized, offset = normalize(scores, lengths)
    return _sums(projective).log_partition(normalized, lengths, single_root) + offset


def marginals(scores: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The probability of each arc, `(batch, n, n + 1)`."""
    normalized, _ = normalize(scores, lengths)
    return _sums(projective).marginals(normalized, lengths, single_root).clamp(0, 1)  # rounding only


def marginals_derivative(scores: Tensor, lengths: Tensor, direction: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The derivative of the marginals when the scores move along `direction`: the same sweep on dual numbers.

    The Jacobian is the Hessian of the log-partition and symmetric, so this is the vector-Jacobian product as well.
    """
    normalized, _ = normalize(scores, lengths)
    direction = direction.double().masked_fill(~arc_mask(lengths, scores.shape[1]), 0.0)
    # Not `torch.autograd.forward_ad`, which is switched off within an operator, without a word.
    return torch.func.jvp(lambda moved: _sums(projective).marginals(moved, lengths, single_root), (normalized,), (direction,))[
        1
    ]


def sample(scores: Tensor, lengths: Tensor, seeds: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The heads of drawn trees, `(samples, batch, n)`, n + 1 beyond the sentence; one for each of `seeds (samples, batch)`."""
    drawn = _sums(projective).sample(normalize(scores, lengths)[0], lengths, seeds, single_root)
    # Where scores are so large that their differences have no digits left (1e13 and more), what is drawn may be no tree.
    valid = is_tree(drawn.flatten(0, 1), projective, single_root, lengths.repeat(len(drawn))).view(drawn.shape[:2])
    if valid.all():
        return drawn
    best = argmax(scores, lengths, projective, single_root).argmax(2)
    return torch.where(valid[:, :, None] | ~word_mask(lengths, scores.shape[1]), drawn, best)
