"""SparseMAP on ranges of groups of a batch: eight sentences at a time ask for their best trees together (see `kernels`)."""

import numpy as np

from hf_latent.inference.cpu import active_set
from hf_latent.inference.cpu.batch import BAD_START, DONE, NO_STRUCTURE, NOT_CONVERGED
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
    slots = WIDTH if projective else 1
    most = sizes[order[first * WIDTH]]
    place, stop = first * WIDTH, min(last * WIDTH, len(order))
    owner = np.full(slots, -1)
    counts, iterations = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
    stop_at, offsets, largest = np.zeros(slots), np.zeros(slots), np.zeros(slots)
    shifted, rest = np.empty((slots, most, most + 1)), np.empty((slots, most, most + 1))
    vertices = [np.empty((active_set.ROOM, most), np.int32) for _ in range(slots)]
    factors = [np.empty((active_set.ROOM, active_set.ROOM)) for _ in range(slots)]
    weights = [np.zeros(active_set.ROOM) for _ in range(slots)]
    reduced = [np.zeros((2, active_set.ROOM)) for _ in range(slots)]
    heads, state = np.zeros((slots, most), np.int32), np.zeros(1, np.uint64)  # no random numbers are drawn
    lanes, charts = charts_of(scratch, 0, 1, most + 1)[0], six_charts(scratch, 1, most if projective else 0)
    lanes[:] = -np.inf
    found, found_weights, found_rows, number = np.empty((64, most), np.int32), np.empty(64), np.empty(64, np.int64), 0
    while not cancelled[0]:
        busy, size = False, 0
        for slot in range(slots):
            while owner[slot] < 0 and place < stop:
                index = order[place]
                place += 1
                if _admitted(values[index], starts[index], sizes[index], projective, single_root, shifted[slot], status, index):
                    n = sizes[index]
                    owner[slot], counts[slot], iterations[slot] = index, 0, 0
                    rest[slot, :n, : n + 1] = shifted[slot, :n, : n + 1]
            if owner[slot] >= 0:
                busy, size = True, max(size, sizes[owner[slot]])
        if not busy:
            break
        if projective:
            _into_lanes(rest, owner, sizes, lanes)
            eisner.inside(lanes, size, single_root, charts, larger, plus, -np.inf, 0.0)
        for slot in range(slots):
            index = owner[slot]
            if index < 0:
                continue
            n = sizes[index]
            found_one = True
            if counts[slot] == 0 and starts[index, 0] >= 0:
                heads[slot, :n] = starts[index, :n]
            elif projective:
                found_one = charts[eisner.RIGHT][0, n, slot] > -np.inf
                if found_one:
                    eisner.trace(charts, slot, n, single_root, heads[slot], False, state)
            else:
                found_one = arborescence.best_heads(rest[slot], n, -np.inf, single_root, heads[slot])
            if not found_one:
                status[index], owner[slot] = NO_STRUCTURE, -1
                continue
            count, room = counts[slot], len(weights[slot])
            if count == room:
                vertices[slot] = active_set.grown(vertices[slot], 2 * room, most)
                factors[slot] = active_set.grown(factors[slot], 2 * room, 2 * room)
                weights[slot] = active_set.grown_row(weights[slot], 2 * room)
                reduced[slot] = active_set.grown(reduced[slot], 2, 2 * room)
            trees, factor, solved, shares = vertices[slot], factors[slot], reduced[slot], weights[slot]
            trees[count, :n] = heads[slot, :n]
            if count == 0:
                stop_at[slot] = active_set.begin(shifted[slot], n, tol, trees, factor, solved, shares)
                said, gaps[index] = active_set.GOES_ON, np.inf
                # Products with the scores are kept relative to the first: a constant changes nothing where weights sum to 1.
                offsets[slot] = active_set.score(shifted[slot], trees[0], n)
                largest[slot] = active_set.largest_difference(shifted[slot], trees[0], n)
            else:
                product = active_set.score(shifted[slot], trees[count], n) - offsets[slot]
                largest[slot] = max(largest[slot], active_set.largest_difference(shifted[slot], trees[count], n))
                # No smaller than rounding allows.
                enough = stop_at[slot] + 1e-16 * n * largest[slot]
                gaps[index], said = active_set.extend(rest[slot], product, n, trees, factor, solved, shares, count, enough)
            if said == active_set.GOES_ON and iterations[slot] >= max_iter:
                status[index], said = NOT_CONVERGED, active_set.CONVERGED  # as far as it may go
            if said == active_set.GOES_ON:
                counts[slot] += 1
                target, dropped = np.empty(counts[slot]), True
                while dropped and said == active_set.GOES_ON and iterations[slot] < max_iter:
                    iterations[slot] += 1
                    counts[slot], dropped, said = active_set.improve(trees, factor, solved, shares, target, counts[slot])
                active_set.subtract(shifted[slot], n, trees, shares, counts[slot], rest[slot])
            if said == active_set.CONVERGED:
                count = counts[slot]
                rest[slot] = 0.0
                active_set.combine(trees[:count, :n], shares[:count], rest[slot])
                for word in range(n):
                    for head in range(n + 1):
                        point[index, word, head] = min(rest[slot, word, head], 1.0)  # rounding only
                found, found_weights, found_rows, number = _recorded(
                    trees, shares, count, n, index, found, found_weights, found_rows, number
                )
                owner[slot] = -1
    return found[:number], found_weights[:number], found_rows[:number]


@Kernel
def sparsemap_derivative(trees, weights, ends, sizes, first, last, directions, out, cancelled):  # type: ignore[no-untyped-def]
    """Writes the derivative of projections along `directions` into `out`, which is 0 on entry, for the rows in a range.

    The trees of row r, of which it has a share in `weights`, are those from `ends[r]` to `ends[r + 1]`.
    """
    for index in range(first, last):
        if cancelled[0]:
            return
        n = sizes[index]
        support = trees[ends[index] : ends[index + 1], :n]
        change = active_set.direction(support, weights[ends[index] : ends[index + 1]], directions[index])
        total = np.zeros((n, n + 1))
        active_set.combine(support, change, total)
        out[index, :n, : n + 1] = total


@part
def _admitted(scores, start, n, projective, single_root, shifted, status, index):  # type: ignore[no-untyped-def]
    """Whether there is something to project: else the `status` of the row says what is wrong, or it has no words."""
    lowest = check_sentence(scores, n, status[index : index + 1])
    if n > 0 and status[index] == DONE and not active_set.shift(scores, n, lowest, shifted):
        status[index] = NO_STRUCTURE
    if n > 0 and start[0] >= 0 and status[index] == DONE:
        is_tree = validity.is_tree(start, n, projective, single_root)
        if not is_tree or active_set.score(shifted, start, n) == -np.inf:
            status[index] = BAD_START
    return n > 0 and status[index] == DONE


@part
def _into_lanes(rest, owner, sizes, lanes):  # type: ignore[no-untyped-def]
    """What is left to project, for the sentences that are worked on."""
    for slot in range(len(owner)):
        if owner[slot] >= 0:
            n = sizes[owner[slot]]
            for word in range(n):
                for head in range(n + 1):
                    lanes[word + 1, head, slot] = rest[slot, word, head]


@part
def _recorded(trees, shares, count, n, row, found, weights, rows, number):  # type: ignore[no-untyped-def]
    """What was `found` so far, `number` in all, with the trees of this row that have a share in its projection."""
    if number + count > len(weights):
        length = 2 * (number + count)
        found = active_set.grown(found, length, found.shape[1])
        weights = active_set.grown_row(weights, length)
        longer = np.empty(length, np.int64)
        longer[:number] = rows[:number]
        rows = longer
    for k in range(count):
        if shares[k] > 0.0:
            found[number, :n] = trees[k, :n]
            found[number, n:] = -1
            weights[number], rows[number] = shares[k], row
            number += 1
    return found, weights, rows, number
