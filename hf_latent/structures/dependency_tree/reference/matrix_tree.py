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

from hf_latent.inference.normalize import FORBIDDEN
from hf_latent.inference.random import uniforms
from hf_latent.structures.dependency_tree.reference import arborescence
from hf_latent.structures.dependency_tree.reference.masking import word_mask

# So many numbers at most, of the matrices of all words, are kept at once when trees are drawn (or those of one sentence).
LARGEST_CHUNK = 2**25


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


def sample(scores: Tensor, lengths: Tensor, seeds: Tensor, single_root: bool) -> Tensor:
    """The heads of drawn trees, `(samples, batch, n)`, n + 1 beyond the sentence, for each of `seeds (samples, batch)`.

    The elimination run backwards: from a drawn tree over the words before k, one that has word k as well. What is left of
    an arc i → j when k is eliminated is the sum of the arc itself and the path i → k → j, so that each arc of the tree is drawn
    to be one or the other. Words whose arcs lead through k become its dependents. Its own head is then any word that does not
    hang from it (or ROOT), with the weights a[k, j]: where R is the sum of these, and m words hang from k, the heads j of
    their paths that make up a tree weigh R · d[k]^(m - 1) in all (Cayley's formula, with weights), which leaves R / d[k] in
    Z = prod_k d[k]. With a single root, ROOT has no weight beside a word's. A tree comes out whatever is lost to rounding.

    Time O(n³) for any number of samples, and O(n² log n) for each.
    """
    n = scores.shape[1]
    rows = max(1, LARGEST_CHUNK // max(1, n**3 // 3))
    if len(scores) > rows:
        parts = zip(scores.split(rows), lengths.split(rows), seeds.split(rows, dim=1), strict=True)
        return torch.cat([sample(*some, single_root) for some in parts], dim=1)
    words, order = word_mask(lengths, n), None
    if single_root and n:
        scores, order = _best_root_first(scores, lengths)
    matrices, pivots = _eliminate(scores, lengths, single_root)
    draws = uniforms(seeds, n * (n + 1) // 2)
    heads = seeds.new_zeros(*seeds.shape, 0)
    for k in range(n):
        matrix, pivot = matrices.pop(), pivots.pop()
        now, draws = draws[..., : k + 1], draws[..., k + 1 :]
        onwards = matrix[:, k, : k + 1].expand(len(seeds), -1, -1)
        arcs = matrix[:, :k, : k + 1].expand(len(seeds), -1, -1, -1).gather(3, heads[..., None])[..., 0]
        paths = matrix[:, :k, k + 1] + onwards.gather(2, heads) - pivot[:, None]
        heads = heads.masked_fill(now[..., :k] < torch.sigmoid(paths - arcs), k + 1)
        ends = torch.nn.functional.pad(torch.nn.functional.pad(heads, (1, 0)), (0, 1), value=k + 1)
        for _ in range(k.bit_length()):
            ends = ends.gather(2, ends)  # pointer doubling: ROOT, or word k
        onwards = onwards.masked_fill(ends[..., :-1] == k + 1, -torch.inf)
        if single_root:
            only_root = onwards[..., 1:].isneginf().all(2)
            onwards[..., 0] = onwards[..., 0].masked_fill(~only_root, -torch.inf)
        heads = torch.cat([heads, _drawn(onwards, now[..., k])[..., None]], dim=2)
    if order is not None:  # back to where the words were
        places = torch.nn.functional.pad(order + 1, (1, 0)).expand(len(seeds), -1, -1)
        heads = places.gather(2, heads).gather(2, order.expand(len(seeds), -1, -1))
    return heads.where(words, n + 1)


def _drawn(scores: Tensor, draws: Tensor) -> Tensor:
    """A place of the last dimension, with probability ∝ exp(score), by numbers `draws` in [0, 1) for each of the rest."""
    chances = torch.softmax(scores, -1)
    sums = chances.cumsum(-1)
    possible = (chances > 0) & (sums > draws[..., None] * sums[..., -1:])
    return torch.where(possible.any(-1), possible.int().argmax(-1), chances.argmax(-1))
