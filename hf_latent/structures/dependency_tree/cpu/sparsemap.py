"""SparseMAP on ranges of groups of a batch: eight sentences at a time ask for their best trees together (see `kernels`)."""

import numpy as np

from hf_latent.inference.cpu import active_set, projections
from hf_latent.inference.cpu.batch import BAD_START, DONE, NO_STRUCTURE
from hf_latent.inference.cpu.compiling import Kernel, part
from hf_latent.inference.cpu.simd import WIDTH, charts_of, larger, plus
from hf_latent.structures.dependency_tree.cpu import arborescence, eisner, validity
from hf_latent.structures.dependency_tree.cpu.kernels import check_sentence, six_charts


@Kernel
def sparsemap(  # type: ignore[no-untyped-def]
    values, starts, sizes, order, first, last, projective, single_root, scratch, tol, max_iter, point, gaps, status, cancelled
):
    """Writes projections into `point`, which is 0 on entry, and their duality gaps into `gaps (batch,)`.

    `starts (batch, n)` are the heads of a tree to begin with, or negative. Sentences are worked on eight at a time (one at a
    time where trees are not projective), each for as long as it takes; whoever is done makes room for the next.

    Returns what the projections are made of: the heads of the trees `(count, n)`, their weights and their rows `(count,)`.
    """
    most = sizes[order[first * WIDTH]]
    place, stop = first * WIDTH, min(last * WIDTH, len(order))
    slots = projections.free_slots(WIDTH if projective else 1, most)
    heads, state = np.zeros(most, np.int32), np.zeros(1, np.uint64)  # no random numbers are drawn
    lanes, charts = charts_of(scratch, 0, 1, most + 1)[0], six_charts(scratch, 1, most if projective else 0)
    lanes[:] = -np.inf
    while not cancelled[0]:
        size = 0
        for slot in range(len(slots.owner)):
            while slots.owner[slot] < 0 and place < stop:
                row = order[place]
                place += 1
                scores = _admissible(values[row], starts[row], sizes[row], projective, single_root, status, row)
                if len(scores):
                    projections.admit(slots, slot, row, scores)
            if slots.owner[slot] >= 0:
                size = max(size, sizes[slots.owner[slot]])
        if size == 0:
            break
        if projective:
            _into_lanes(slots, lanes)
            eisner.inside(lanes, size, single_root, charts, larger, plus, -np.inf, 0.0)
        for slot in range(len(slots.owner)):
            row = slots.owner[slot]
            if row < 0:
                continue
            n, found = sizes[row], True
            if slots.counts[slot] == 0 and starts[row, 0] >= 0:
                heads[:n] = starts[row, :n]
            elif projective:
                found = charts[eisner.RIGHT][0, n, slot] > -np.inf
                if found:
                    eisner.trace(charts, slot, n, single_root, heads, False, state)
            else:
                found = arborescence.best_heads(slots.rest[slot], n, -np.inf, single_root, heads)
            if found:
                own = point[row, :n, : n + 1]
                projections.take(slots, slot, heads[:n], True, tol, max_iter, status, gaps, own)
            else:
                status[row], slots.owner[slot] = NO_STRUCTURE, -1
    return projections.found_in(slots)


@part
def _admissible(values, start, n, projective, single_root, status, row):  # type: ignore[no-untyped-def]
    """The scores to project; none where there are no words, or the `status` of the row says what is wrong."""
    lowest, scores = check_sentence(values, n, status[row : row + 1]), np.empty((n, n + 1))
    if n > 0 and status[row] == DONE and not _shift(values, lowest, scores):
        status[row] = NO_STRUCTURE
    started = n > 0 and start[0] >= 0 and status[row] == DONE
    if started and not (validity.is_tree(start, n, projective, single_root) and active_set.score(scores, start[:n]) > -np.inf):
        status[row] = BAD_START
    return scores if status[row] == DONE else scores[:0]


@part
def _shift(values, lowest, scores):  # type: ignore[no-untyped-def]
    """Scores with a maximum of 0 in each row, which changes nothing; -inf below the `lowest`, and for arcs of a word to itself.

    False where a word has no head: all are forbidden.
    """
    for word in range(scores.shape[0]):
        highest = -np.inf
        for head in range(scores.shape[1]):
            if head != word + 1:
                highest = max(highest, values[word, head])
        if not highest >= lowest or highest == -np.inf:
            return False
        for head in range(scores.shape[1]):
            allowed = head != word + 1 and values[word, head] >= lowest
            scores[word, head] = values[word, head] - highest if allowed else -np.inf
    return True


@part
def _into_lanes(slots, lanes):  # type: ignore[no-untyped-def]
    """What is left to project, for the sentences that are worked on."""
    for slot in range(len(slots.owner)):
        if slots.owner[slot] >= 0:
            rest = slots.rest[slot]
            for word in range(rest.shape[0]):
                for head in range(rest.shape[1]):
                    lanes[word + 1, head, slot] = rest[word, head]
