"""The algorithms of this folder behind one set of functions: trees of each kind, from checked scores of any dtype."""

from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from hf_latent.inference.random import uniforms
from hf_latent.inference.reference import arborescence, eisner, matrix_tree
from hf_latent.inference.reference.masking import FORBIDDEN, arc_mask, normalize


def _sums(projective: bool) -> ModuleType:
    return eisner if projective else matrix_tree


def best_arcs(normalized: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The arcs of a highest-scoring tree, from normalized scores (in which arcs may be forbidden)."""
    return (eisner if projective else arborescence).argmax(normalized, lengths, single_root)


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
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(normalized, direction)
        derivative = forward_ad.unpack_dual(_sums(projective).marginals(dual, lengths, single_root)).tangent
    return torch.zeros_like(normalized) if derivative is None else derivative


def sample(scores: Tensor, lengths: Tensor, seeds: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The heads of drawn trees, `(samples, batch, n)`, n + 1 beyond the sentence; one for each of `seeds (samples, batch)`.

    By the chain rule: the head of each word in turn, given those of the words before it. Time O(n⁴).
    """
    batch, n = scores.shape[:2]
    draws = uniforms(seeds, n)
    heads = torch.full((len(seeds), batch, n), n + 1, device=scores.device)
    for turn in range(len(seeds)):
        normalized, _ = normalize(scores, lengths)
        for word in range(n):
            chances = _sums(projective).marginals(normalized, lengths, single_root)[:, word]
            sums = chances.clamp(min=0).cumsum(1)
            point = draws[turn, :, word, None] * sums[:, -1:]
            # The first head whose running sum exceeds the point; rounding must not lead beyond the last possible one.
            possible = (chances > 0) & (sums > point)
            head = torch.where(possible.any(1), possible.int().argmax(1), chances.argmax(1))
            chosen = torch.full_like(normalized[:, word], FORBIDDEN).scatter(1, head[:, None], 0.0)
            inside = word < lengths
            normalized[:, word] = torch.where(inside[:, None], chosen, normalized[:, word])
            heads[turn, :, word] = torch.where(inside, head, n + 1)
    return heads
