"""Non-projective trees: Chu-Liu/Edmonds in the form of Tarjan (1977) and Camerini et al. (1979) for dense graphs, compiled.

Walk from a word to its best head, from there to that one's best head, and so on. A walk that meets itself has found a cycle,
which is contracted into one group; a walk ends at ROOT, or where another one has ended. A group's row of incoming scores is
the best of its members', less what each of them paid for its own arc. Each of at most n contractions costs O(n) a member.

The best tree with a single root is the best one among those with the fewest arcs from ROOT, so no group looks at ROOT while
a word outside can head it. No finite cost is added to anything, and nothing is lost to rounding.
"""

import numpy as np

from hf_latent.inference.cpu.compiling import part


@part
def best_heads(scores, n, lowest, single_root, heads):  # type: ignore[no-untyped-def]
    """Writes the head of each word of a highest-scoring tree into `heads (n,)`; False if there is none. Time O(n²).

    Arcs that score -inf, or below `lowest`, are forbidden.
    """
    # Nodes: ROOT is 0, words are 1 to n, groups come after that.
    nodes = 2 * n + 1
    incoming = np.empty((nodes, n + 1))  # the best score of an arc from each head into a group, and the word that it enters at
    entry = np.empty((nodes, n + 1), np.int32)
    group = np.arange(n + 1)  # where each word is at present
    value, best_head = np.empty(nodes), np.empty(nodes, np.int64)
    parent, sibling, child = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    settled, on_path = np.zeros(nodes, np.bool_), np.zeros(nodes, np.bool_)
    path = np.empty(nodes, np.int64)
    for word in range(1, n + 1):
        for head in range(n + 1):
            score = scores[word - 1, head]
            incoming[word, head] = score if head != word and score >= lowest else -np.inf
        entry[word] = word
    newest, roots = n, 0
    for start in range(1, n + 1):
        node, steps = group[start], 0
        while not settled[node]:
            first = 1 if single_root else 0
            head = first
            for other in range(first + 1, n + 1):
                if incoming[node, other] > incoming[node, head]:
                    head = other
            if single_root and incoming[node, head] == -np.inf:
                head, roots = 0, roots + 1
            if incoming[node, head] == -np.inf or roots > 1:
                return False
            value[node], best_head[node] = incoming[node, head], head
            on_path[node], path[steps] = True, node
            steps += 1
            if head == 0 or settled[group[head]]:
                for step in range(steps):
                    settled[path[step]] = True
            elif not on_path[group[head]]:
                node = group[head]
            else:
                newest += 1
                steps = _contract(
                    newest, group[head], path, steps, on_path, incoming, entry, value, group, parent, sibling, child
                )
                node = newest
    # Each group is entered at one word; there, the arc from outside stands in for those that led round the cycles.
    steps = 0
    for node in range(1, newest + 1):
        if parent[node] == 0:
            path[steps] = node
            steps += 1
    while steps > 0:
        steps -= 1
        node = path[steps]
        inner = entry[node, best_head[node]]
        heads[inner - 1] = best_head[node]
        while inner != node:
            other = child[parent[inner]]
            while other != 0:
                if other != inner:
                    path[steps] = other
                    steps += 1
                other = sibling[other]
            inner = parent[inner]
    return True


@part
def _contract(new, last, path, steps, on_path, incoming, entry, value, group, parent, sibling, child):  # type: ignore[no-untyped-def]
    """The groups at the end of the path, down to `last`, become the group `new`; how many are left on the path."""
    words = len(group)
    incoming[new] = -np.inf
    node = 0
    while node != last:
        steps -= 1
        node = path[steps]
        on_path[node] = False
        parent[node], sibling[node], child[new] = new, child[new], node
        for head in range(words):
            score = incoming[node, head] - value[node]
            if score > incoming[new, head]:
                incoming[new, head], entry[new, head] = score, entry[node, head]
        for word in range(1, words):
            if group[word] == node:
                group[word] = new
    for word in range(1, words):
        if group[word] == new:
            incoming[new, word] = -np.inf
    return steps
