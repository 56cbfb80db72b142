"""Non-projective trees drawn by loop-erased random walks (Wilson 1996), compiled."""

import numpy as np

from hf_latent.inference.cpu import random
from hf_latent.inference.cpu.compiling import part

# How many steps to walk, per word: walks take long where words prefer each other to ROOT by far. How long they take says
# nothing about the tree in which they end (Wilson 1996), so that giving up and drawing in another way favours no tree.
PATIENCE = 1000


@part
def sample_heads(sums, n, root, heads, state):  # type: ignore[no-untyped-def]
    """Draws a tree into `heads (n,)`; False if the walk takes too long.

    Row i of `sums (n, n + 1)` has the running sums of the weights of word i's heads. All walks end at `root`: 0, or the one
    word (from 1) whose head is ROOT; then ROOT has no weight.
    """
    in_tree = np.zeros(n + 1, np.bool_)
    in_tree[root] = True
    if root > 0:
        heads[root - 1] = 0
    steps = 0
    for start in range(1, n + 1):
        node = start
        while not in_tree[node]:
            word = sums[node - 1, : n + 1]
            head = np.searchsorted(word, random.uniform(state) * word[n], side="right")
            if head <= n:  # rounding can carry a number up to the whole sum: draw again
                heads[node - 1] = head
                node = head
            steps += 1
            if steps > PATIENCE * n:
                return False
        node = start
        while not in_tree[node]:
            in_tree[node] = True
            node = heads[node - 1]
    return True


@part
def draw(roots, n, state):  # type: ignore[no-untyped-def]
    """One of n words (from 1), by the running sums of their probabilities."""
    point = random.uniform(state) * roots[n - 1]
    for word in range(n - 1):
        if roots[word] > point:
            return word + 1
    return n
