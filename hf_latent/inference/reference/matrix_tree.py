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

from hf_latent.inference.reference.masking import FORBIDDEN, word_mask


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


def log_partition(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """log of the sum over all trees of exp(score): `(batch,)` from normalized scores `(batch, n, n + 1)`."""
    _, pivots = _eliminate(scores, lengths, single_root)
    return torch.stack(pivots).sum(0) if pivots else scores.new_zeros(len(scores))


def marginals(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """The probability of each arc: the elimination run backwards from d log Z / d log d[k] = 1."""
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
