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
    below = np.empty(n + 1, np.int8)  # whether a word hangs from the one that is put back: NO, YES or not known
    for k in range(1, n + 1):
        divided = False
        below[0] = 0
        for word in range(1, k):
            below[word] = -1
            if through[word] == k:
                heads[word - 1], through[word] = k, _detour(weights, paths, pivots, word, k, n, lane, state)
                below[word], divided = 1, True
        for word in range(1, k):
            node = word
            while divided and below[node] < 0:
                node = heads[node - 1]
            found = below[node] if divided else 0
            node = word
            while below[node] < 0:
                below[node] = found
                node = heads[node - 1]
        first = 1 if single_root and k > 1 else 0
        total = 0.0
        for head in range(first, k):
            if not below[head]:
                total += paths[k, head, lane]
        # With a single root, nothing is left but ROOT where the whole tree hangs from this word.
        point, chosen = random.uniform(state) * total, 0
        for head in range(first, k):
            if not below[head] and point >= 0.0 and paths[k, head, lane] > 0.0:
                chosen = head
                point -= paths[k, head, lane]
        heads[k - 1], through[k] = chosen, _detour(weights, paths, pivots, k, chosen, n, lane, state)


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
