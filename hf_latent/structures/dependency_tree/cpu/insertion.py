"""Non-projective trees drawn by putting the eliminated words back, compiled. See `reference.matrix_tree.sample`."""

import numpy as np

from hf_latent.inference.cpu import random
from hf_latent.inference.cpu.compiling import part


@part
def sample_heads(weights, paths, pivots, n, lane, single_root, heads, state):  # type: ignore[no-untyped-def]
    """Draws a tree into `heads (n,)`, from the `weights` of arcs and from `paths` and `pivots`, what elimination made of them.

    Whatever the weights, in time O(n³) at the most; mostly little more than O(n²), as few arcs lead through other words.
    """
    through = np.zeros(n + 1, np.int64)  # the word through which each word's arc leads
    below = np.zeros(n + 1, np.bool_)  # whether a word hangs from the one that is put back
    for k in range(1, n + 1):
        moved = False
        for word in range(1, k):
            if through[word] == k:
                heads[word - 1], through[word] = k, _detour(weights, paths, pivots, word, k, n, lane, state)
                moved = True
        first, total = 1 if single_root and k > 1 else 0, pivots[k, lane]
        if moved:
            _find_below(heads, k, below)
            total = 0.0
            for head in range(first, k):
                if not below[head]:
                    total += paths[k, head, lane]
        # With a single root, nothing is left but ROOT where the whole tree hangs from this word.
        point, chosen = random.uniform(state) * total, 0
        for head in range(first, k):
            if not (moved and below[head]) and paths[k, head, lane] > 0.0:
                chosen = head
                point -= paths[k, head, lane]
                if point < 0.0:
                    break
        heads[k - 1], through[k] = chosen, _detour(weights, paths, pivots, k, chosen, n, lane, state)


@part
def _find_below(heads, k, below):  # type: ignore[no-untyped-def]
    """Which of the words before k hang from k, into `below`. Time O(k)."""
    known = np.zeros(k + 1, np.bool_)
    known[0] = known[k] = below[k] = True
    for word in range(1, k):
        node = word
        while not known[node]:
            node = heads[node - 1]
        found = below[node]
        node = word
        while not known[node]:
            known[node], below[node] = True, found
            node = heads[node - 1]


@part
def _detour(weights, paths, pivots, word, head, n, lane, state):  # type: ignore[no-untyped-def]
    """The first of the words that are not back yet through which the arc leads; 0 if it is the arc itself."""
    point = random.uniform(state) * paths[word, head, lane] - weights[word, head, lane]
    chosen = 0
    if point >= 0.0:
        for k in range(max(word, head) + 1, n + 1):
            share = paths[word, k, lane] * paths[k, head, lane] / pivots[k, lane]
            if share > 0.0:
                chosen = k
                point -= share
                if point < 0.0:
                    break
    return chosen
