"""What the reference algorithms compute with: forbidden parts in a finite number, and the best part of each group at 0."""

from torch import Tensor

from hf_latent.inference.checks import in_reach

# -inf as the recursions of the reference write it: sums of it never overflow and differences of it are never NaN, so forbidden
# entries need no special case. `exp` of it is exactly 0, and real scores lie far above it.
FORBIDDEN = -1e290


def normalize(scores: Tensor, positions: Tensor, group_dims: int) -> tuple[Tensor, Tensor]:
    """Float64 scores with `FORBIDDEN` where no part may be, and a maximum of 0 in each group; and the sum of the maxima.

    Each group, the last `group_dims` dimensions, has one part in it, so a constant added to a group changes the score of every
    structure alike: argmax, marginals and projection stay as they are, and the log-partition moves by the sum `(batch,)`
    that is returned. `positions` (bool, as `scores`) says where scores count.
    """
    mask = in_reach(scores, positions)
    dims = tuple(range(-group_dims, 0))
    scores = scores.double().masked_fill(~mask, FORBIDDEN)
    maxima = scores.detach()
    for dim in dims:  # of which one may be empty, where there is no group
        maxima = maxima.amax(dim, keepdim=True) if maxima.shape[dim] else maxima.sum(dim, keepdim=True)
    maxima = maxima.masked_fill(maxima == FORBIDDEN, 0.0)
    return (scores - maxima).masked_fill(~mask, FORBIDDEN), maxima.flatten(1).sum(1)
