"""What a tree is, by its definition: the brute-force twin of all the algorithms."""

import torch
from torch import Tensor

LARGEST_ENUMERATION = 7


def is_tree(heads: Tensor, projective: bool = False, single_root: bool = False, lengths: Tensor | None = None) -> Tensor:
    """Whether each row of `heads (count, n)` is a tree: `(count,)` bool.

    `heads[c, i]` is the head of word i: 0 for ROOT, j for word j - 1. What lies beyond `lengths (count,)` does not count.
    """
    count, n = heads.shape
    if lengths is not None:
        # Words beyond the sentence hang from the one before, so that they count neither as roots nor as crossing.
        previous = torch.arange(n, device=heads.device)
        heads = torch.where(previous < lengths[:, None], heads, previous)
    heads = torch.cat([heads.new_zeros(count, 1), heads], dim=1)
    ancestor = heads
    for _ in range(n.bit_length()):  # after n steps up, all that hangs from ROOT has arrived there
        ancestor = ancestor.gather(1, ancestor)
    valid = (ancestor == 0).all(1)
    if single_root:
        valid &= (heads[:, 1:] == 0).sum(1) == min(n, 1)
    if projective:
        positions = torch.arange(1, n + 1, device=heads.device).expand(count, n)
        left, right = torch.minimum(positions, heads[:, 1:]), torch.maximum(positions, heads[:, 1:])
        a, b, c, d = left[:, :, None], right[:, :, None], left[:, None, :], right[:, None, :]
        valid &= ~((a < c) & (c < b) & (b < d)).any(dim=(1, 2))
    return valid


def all_trees(n: int, projective: bool, single_root: bool) -> Tensor:
    """All trees over n words as 0/1 arcs, `(count, n, n + 1)`, in float32. Time and memory O((n + 1)^n)."""
    if not 0 <= n <= LARGEST_ENUMERATION:
        raise ValueError(
            f"`size` must lie between 0 and {LARGEST_ENUMERATION}, got {n}: there are (size + 1)^(size - 1) trees. "
            "For larger sentences, use `marginals`, `log_partition` or `argmax`, which need no enumeration."
        )
    if n == 0:
        return torch.zeros(1, 0, 1)
    heads = torch.cartesian_prod(*[torch.arange(n + 1)] * n).view(-1, n)
    heads = heads[is_tree(heads, projective, single_root)]
    return torch.nn.functional.one_hot(heads, n + 1).float()
