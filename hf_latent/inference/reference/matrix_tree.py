"""Non-projective trees: the matrix-tree theorem without a subtraction (Tutte 1984; Koo et al. 2007).

The sum over spanning arborescences is the determinant of the Laplacian. Its diagonal is the sum of the rest of the
row, so Gaussian elimination can be arranged to add, multiply and divide positive numbers only (Grassmann, Taksar and
Heyman 1985): eliminating word k hands its dependents on to its possible heads,

    a[i, j]  <-  a[i, j] + a[i, k] a[k, j] / d[k],       d[k] = sum_j a[k, j],       Z = prod_k d[k].

Nothing cancels, so the elimination runs on logarithms and stays exact where the determinant of a float matrix would
be 0 or negative. With a single root the sum over trees is the part of Z that is linear in the root scores; to leading
order the root then drops out of every d[k] but the last.

Time O(n^3) in n vectorized steps, memory O(n^3 / 3) for the marginals.
"""

import torch
from torch import Tensor

from hf_latent.inference.reference import arborescence
from hf_latent.inference.reference.masking import FORBIDDEN, word_mask

# A head of this probability is taken for certain when trees are drawn.
CERTAIN = 1 - 1e-12


def _eliminate(scores: Tensor, lengths: Tensor, single_root: bool) -> tuple[list[Tensor], list[Tensor]]:
    """The shrinking score matrices (`(batch, k + 1, k + 2)`, k = n - 1 ... 0) and log d[k] for each of them."""
    words = word_mask(lengths, scores.shape[1])
    matrices, pivots = [], []
    for k in range(scores.shape[1] - 1, -1, -1):
        matrices.append(scores)
        heads = scores[:, k, int(single_root and k > 0) : k + 1]
        pivot = heads.logsumexp(1).where(words[:, k], 0.0)  # padding has no head and takes no part
        pivots.append(pivot)
        through_k = scores[:, :k, k + 1, None] + (scores[:, k, : k + 1] - pivot[:, None])[:, None, :]
        scores = _without_self_arcs(torch.logaddexp(scores[:, :k, : k + 1], through_k), FORBIDDEN)
    return matrices, pivots


def _without_self_arcs(paths: Tensor, nothing: float) -> Tensor:
    """A word that would come to head itself has closed a cycle: that path counts for nothing."""
    k = paths.shape[1]
    return paths.masked_fill(torch.eye(k, k + 1, dtype=torch.bool, device=paths.device).roll(1, dims=1), nothing)


def _best_root_first(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Each sentence with its first word and the root of its best tree in each other's place.

    The first word is the one whose pivot ROOT takes part in. The product of the others' pivots is the weight of all ways to
    hang from it, which is nothing if it can be no root, and at least that of the best tree if it is the root of that. Returns
    the order of the words, too, by which the same exchange goes back.
    """
    batch, n = scores.shape[:2]
    root = arborescence.argmax(scores.detach(), lengths, single_root=True)[:, :, 0].argmax(1, keepdim=True)
    order = torch.arange(n, device=scores.device).expand(batch, n).scatter(1, root, 0)
    order = order.scatter(1, torch.zeros_like(root), root)
    return _reordered(scores, order), order


def _reordered(arcs: Tensor, order: Tensor) -> Tensor:
    heads = torch.cat([torch.zeros_like(order[:, :1]), order + 1], dim=1)
    rows = arcs.gather(1, order[:, :, None].expand_as(arcs))
    return rows.gather(2, heads[:, None, :].expand_as(arcs))


def log_partition(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """log of the sum over all trees of exp(score): `(batch,)` from normalized scores `(batch, n, n + 1)`."""
    if not scores.shape[1]:
        return scores.new_zeros(len(scores))
    if single_root:
        scores, _ = _best_root_first(scores, lengths)
    return torch.stack(_eliminate(scores, lengths, single_root)[1]).sum(0)


def marginals(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """The probability of each arc."""
    if not single_root or not scores.shape[1]:
        return _marginals(scores, lengths, single_root)
    reordered, order = _best_root_first(scores, lengths)
    return _reordered(_marginals(reordered, lengths, single_root), order)


def _marginals(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """The elimination run backwards from d log Z / d log d[k] = 1."""
    batch, n = scores.shape[:2]
    words = word_mask(lengths, n)
    matrices, pivots = _eliminate(scores, lengths, single_root)
    flow = scores.new_zeros(batch, 0, 1)
    for k in range(n):
        matrix, pivot = matrices.pop(), pivots.pop()
        to_k, from_k = matrix[:, :k, k + 1, None], (matrix[:, k, : k + 1] - pivot[:, None])[:, None, :]
        share = torch.sigmoid(to_k + from_k - matrix[:, :k, : k + 1])
        through_k = _without_self_arcs(flow * share, 0.0)
        grown = torch.zeros_like(matrix)
        grown[:, :k, : k + 1] = flow - through_k
        grown[:, :k, k + 1] = through_k.sum(2)
        grown[:, k, : k + 1] = through_k.sum(1)
        first = int(single_root and k > 0)
        heads = torch.softmax(matrix[:, k, first : k + 1], dim=1)
        rest = (1 - through_k.sum((1, 2))).where(words[:, k], 0.0)
        grown[:, k, first : k + 1] += heads * rest[:, None]
        flow = grown
    return flow


def sample(scores: Tensor, lengths: Tensor, draws: Tensor, single_root: bool) -> Tensor:
    """The heads of a drawn tree, `(batch, n)`, n + 1 beyond the sentence; `draws (batch, n or more)` are numbers in [0, 1).

    By the chain rule: the head of each word in turn, given those of the words before it, and of all whose heads are certain by
    then. Time O(n⁴) where few are.
    """
    n = scores.shape[1]
    words = word_mask(lengths, n)
    heads, is_open = torch.full_like(lengths[:, None].expand(-1, n), n + 1), words
    while is_open.any():
        chances = marginals(scores, lengths, single_root).clamp(min=0)
        sums = chances.cumsum(2)
        possible = (chances > 0) & (sums > draws[:, :n, None] * sums[:, :, -1:])
        likeliest = chances.argmax(2)
        certain = chances.amax(2) > CERTAIN
        choice = torch.where(possible.any(2) & ~certain, possible.int().argmax(2), likeliest)
        first = is_open & ~certain
        first = first & (first.cumsum(1) == 1)
        now = is_open & (certain | first)
        heads = torch.where(now, choice, heads)
        alone = torch.full_like(scores, FORBIDDEN).scatter(2, choice[:, :, None], 0.0)
        scores = torch.where(now[:, :, None], alone, scores)
        is_open = is_open & ~now
    return heads
