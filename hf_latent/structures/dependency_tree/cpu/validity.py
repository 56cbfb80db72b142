"""Whether heads make up a tree, compiled. See `hf_latent.structures.dependency_tree.enumeration.is_tree`."""

import numpy as np

from hf_latent.inference.cpu.compiling import part


@part
def is_tree(heads, n, projective, single_root):  # type: ignore[no-untyped-def]
    """Whether `heads (n,)` are a tree of this kind. Time O(n²), O(n) for trees that need not be projective."""
    roots = 0
    for word in range(1, n + 1):
        if not 0 <= heads[word - 1] <= n:
            return False
        roots += heads[word - 1] == 0
    if single_root and n > 0 and roots != 1:
        return False
    walk = np.zeros(n + 1, np.int64)  # the walk in which a node was seen first
    walk[0] = -1
    for start in range(1, n + 1):
        node = start
        while walk[node] == 0:
            walk[node] = start
            node = heads[node - 1]
        if walk[node] == start:  # back where this walk has been
            return False
        node = start
        while walk[node] == start:
            walk[node] = -1
            node = heads[node - 1]
    if projective:
        for word in range(1, n + 1):
            left, right = min(word, heads[word - 1]), max(word, heads[word - 1])
            for other in range(left + 1, right):
                if not left <= heads[other - 1] <= right:
                    return False
    return True
