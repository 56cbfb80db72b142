"""Non-projective trees: the highest-scoring one (Chu and Liu 1965; Edmonds 1967), batched.

No matrix is contracted. Every word carries the label of the group it has been merged into (at first its own), and a
group's best incoming arc is the best over its words. Where such arcs close cycles, each group on a cycle has what it
pays already for its arc subtracted from its words' rows (their reduced scores), arcs inside the merged group are
forbidden, and the next round begins. All cycles of all sentences merge at once, so there are a few rounds of O(n^2) work
as a rule, and n at the most. Going back over the rounds, a group keeps its arc unless a later, larger group is entered
through it.
"""

import torch
from torch import Tensor

from hf_latent.inference.normalize import FORBIDDEN
from hf_latent.structures.dependency_tree.reference.masking import word_mask


def argmax(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """The arcs of a highest-scoring tree, `(batch, n, n + 1)`, from normalized scores."""
    batch, n = scores.shape[:2]
    if n == 0 or batch == 0:
        return torch.zeros_like(scores)
    words = word_mask(lengths, n)
    padding_to_root = torch.zeros_like(scores[0])
    padding_to_root[:, 1:] = FORBIDDEN
    heads = _heads(torch.where(words[:, :, None], scores, padding_to_root), words, single_root)
    return torch.nn.functional.one_hot(heads, n + 1).to(scores) * words[:, :, None]


def _heads(scores: Tensor, words: Tensor, single_root: bool) -> Tensor:
    """The head of each word, `(batch, n)`, 0 for ROOT. Every group is named by its smallest node.

    With a single root, no group looks at ROOT while a word outside, of the `words (batch, n)` of the sentence, can head it.
    """
    batch, n = scores.shape[:2]
    nodes = torch.arange(n + 1, device=scores.device).expand(batch, n + 1)
    groups = nodes
    rounds = []
    while True:
        word_groups = groups[:, 1:]
        scores = scores.masked_fill(word_groups[:, :, None] == groups[:, None, :], FORBIDDEN)
        open_scores = scores
        if single_root:
            nothing = torch.full_like(scores[:, 0], FORBIDDEN)
            elsewhere = nothing.scatter_reduce(1, word_groups, scores[:, :, 1:].amax(2), "amax")
            can_wait = elsewhere.gather(1, word_groups) > FORBIDDEN / 2
            from_root = scores[:, :, 0].masked_fill(words & can_wait, FORBIDDEN)
            open_scores = torch.cat([from_root[:, :, None], scores[:, :, 1:]], dim=2)
        best, best_head = open_scores.max(2)
        # For each group: its best word to be entered at, that word's head, and the value of the arc.
        value = torch.full_like(scores[:, 0], -torch.inf).scatter_reduce(1, word_groups, best, "amax")
        is_best = best == value.gather(1, word_groups)
        positions = nodes[:, 1:].where(is_best, n + 1)
        entry = torch.full_like(groups, n + 1).scatter_reduce(1, word_groups, positions, "amin")
        entry = entry.where(entry <= n, nodes)
        entry_head = torch.cat([nodes[:, :1], best_head], 1).gather(1, entry)
        rounds.append((word_groups, entry, entry_head))

        parent = groups.gather(1, entry_head).gather(1, groups)
        smallest, jump = torch.minimum(groups, parent), parent
        for _ in range(n.bit_length()):  # pointer doubling: more than n steps, so that all that is left is on a cycle
            smallest = torch.minimum(smallest, smallest.gather(1, jump))
            jump = jump.gather(1, jump)
        on_cycle = torch.zeros_like(groups, dtype=torch.bool).scatter(1, jump, True)
        on_cycle = on_cycle.gather(1, groups) & (groups > 0)
        if not on_cycle.any():
            break
        paid = value.gather(1, word_groups).where(on_cycle[:, 1:], 0.0)
        scores = scores - paid[:, :, None]
        groups = smallest.where(on_cycle, groups)

    heads = torch.full_like(nodes[:, 1:], -1)
    for word_groups, entry, entry_head in reversed(rounds):
        entered = torch.zeros_like(nodes).scatter_reduce(1, word_groups, (heads >= 0).long(), "amax")
        is_entry = (entry.gather(1, word_groups) == nodes[:, 1:]) & (entered.gather(1, word_groups) == 0)
        heads = entry_head.gather(1, word_groups).where(is_entry, heads)
    return heads
