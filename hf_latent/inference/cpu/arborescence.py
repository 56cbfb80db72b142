"""Non-projective trees: Chu-Liu/Edmonds, compiled. See `reference.arborescence` for how groups merge."""

import numpy as np

from hf_latent.inference.cpu.compiling import kernel


@kernel()
def best_heads(scores, n, single_root, heads):  # type: ignore[no-untyped-def]
    """Writes the head of each word of a highest-scoring tree into `heads (n,)`.

    Time O(n²) a round; a few rounds as a rule, n at the most.
    """
    root_cost = _root_cost(scores, n) if single_root else 0.0
    reduction = np.zeros(n + 1)  # what has been subtracted from each word's row
    group = np.arange(n + 1)
    groups_of_round = np.empty((n + 1, n + 1), np.int64)  # each round but the last merges two groups or more
    entry_of_round = np.empty((n + 1, n + 1), np.int64)
    entry_head_of_round = np.empty((n + 1, n + 1), np.int64)
    value = np.empty(n + 1)
    parent = np.empty(n + 1, np.int64)
    state = np.empty(n + 1, np.int64)
    rounds = 0
    while True:
        entry, entry_head = entry_of_round[rounds], entry_head_of_round[rounds]
        value[:] = -np.inf
        for word in range(1, n + 1):
            mine = group[word]
            for head in range(n + 1):
                if group[head] != mine:
                    score = scores[word - 1, head] - reduction[word] - (root_cost if head == 0 else 0.0)
                    if score > value[mine]:
                        value[mine], entry[mine], entry_head[mine] = score, word, head
        groups_of_round[rounds] = group
        rounds += 1
        # Walk from each group towards ROOT; whoever meets the walk it is on has found a cycle.
        parent[0] = 0
        for node in range(1, n + 1):
            if group[node] == node:
                parent[node] = group[entry_head[node]]
        state[:] = 0
        state[0] = -1
        merged = False
        for start in range(1, n + 1):
            if group[start] != start or state[start] != 0:
                continue
            node = start
            while state[node] == 0:
                state[node] = start
                node = parent[node]
            if state[node] == start:
                merged = True
                _merge(node, parent, group, value, reduction, n)
            node = start
            while state[node] == start:
                state[node] = -1
                node = parent[node]
        if not merged:
            break
    for place in range(n):
        heads[place] = -1
    entered = np.empty(n + 1, np.bool_)
    for turn in range(rounds - 1, -1, -1):
        group, entry, entry_head = groups_of_round[turn], entry_of_round[turn], entry_head_of_round[turn]
        entered[:] = False
        for word in range(1, n + 1):
            if heads[word - 1] >= 0:
                entered[group[word]] = True
        for node in range(1, n + 1):
            if group[node] == node and not entered[node]:
                heads[entry[node] - 1] = entry_head[node]


@kernel()
def _merge(on_cycle, parent, group, value, reduction, n):  # type: ignore[no-untyped-def]
    """All groups on the cycle become one, named by its smallest node; each has what it pays taken off its words."""
    smallest, node = on_cycle, parent[on_cycle]
    while node != on_cycle:
        smallest, node = min(smallest, node), parent[node]
    members = np.zeros(n + 1, np.bool_)
    members[on_cycle] = True
    node = parent[on_cycle]
    while node != on_cycle:
        members[node] = True
        node = parent[node]
    for word in range(1, n + 1):
        if members[group[word]]:
            reduction[word] += value[group[word]]
            group[word] = smallest


@kernel()
def _root_cost(scores, n):  # type: ignore[no-untyped-def]
    """So much that the best tree has as few arcs from ROOT as a tree can have: exactly one."""
    cost = 1.0
    for word in range(n):
        highest, lowest = -np.inf, np.inf
        for head in range(n + 1):
            if head != word + 1:
                highest, lowest = max(highest, scores[word, head]), min(lowest, scores[word, head])
        cost += highest - lowest
    return cost
