"""What Python calls: each operation on a range of groups of a batch.

A group is `WIDTH` sentences that go through the recursion together, one in each lane; `order` lists the rows of the batch so
that those of a group lie side by side, longest first. Sentences keep their own lengths: whatever lies beyond one is there for
the others. Scores and results `(batch, n, n + 1)` are float32 or float64, and all between them is float64; `status (batch,)`
tells how each row went, and where `cancelled (1,)` is set, nobody waits for the results any more. `scratch` has room for as
many charts `(size, size, WIDTH)`, of one place more than there are words, as `CHARTS` says.
"""

import numpy as np

from hf_latent.inference.checks import LARGEST_SCORE
from hf_latent.inference.cpu.batch import DONE, NO_STRUCTURE, NOT_FINITE, OUT_OF_RANGE
from hf_latent.inference.cpu.compiling import Kernel, part
from hf_latent.inference.cpu.simd import (
    WIDTH,
    charts_of,
    constant,
    copy_lane,
    larger,
    load,
    over,
    plus,
    row,
    set_lane,
    store,
    times,
)
from hf_latent.structures.dependency_tree.cpu import arborescence, eisner, insertion, matrix_tree
from hf_latent.structures.dependency_tree.cpu.gather import gather_derivatives, gather_scores, gather_weights, reach_of, scatter

# Sums run on weights, not on their logarithms, where that loses nothing: a weight that falls below the smallest number
# (1e-308) may be lost if all trees through it are a share of less than about 1e-20. An arc's row has 1 as its largest weight,
# so what a span can be multiplied with is at most the number of projective trees, about 6.75^n.
SMALLEST_SUM, TREES_PER_WORD = 1e-282, 6.75
SMALLEST_PIVOT = 1e-200

# What each operation takes, for trees that are projective and others.
CHARTS = {
    "argmax": (7, 0),
    "log_partition": (7, 1),
    "marginals": (15, 3),
    "marginals_derivative": (30, 6),
    "sample": (8, 2),
    "sparsemap": (7, 1),
}


@Kernel
def argmax(values, sizes, order, first, last, projective, single_root, scratch, arcs, status, cancelled):  # type: ignore[no-untyped-def]
    """Writes the arcs of a best tree into `arcs`, which is 0 on entry."""
    size = sizes[order[first * WIDTH]]
    heads = np.empty(size, np.int64)
    state = np.zeros(1, np.uint64)  # no random numbers are drawn
    if projective:
        weights, charts = charts_of(scratch, 0, 1, size + 1)[0], six_charts(scratch, 1, size)
        for group in range(first, last):
            if cancelled[0]:
                return
            rows = order[group * WIDTH : (group + 1) * WIDTH]
            size = sizes[rows[0]]
            gather_scores(values, rows, sizes, weights, status)
            eisner.inside(weights, size, single_root, charts, larger, plus, -np.inf, 0.0)
            for lane in range(len(rows)):
                index = rows[lane]
                n = sizes[index]
                if status[index] == DONE and charts[eisner.RIGHT][0, n, lane] == -np.inf:
                    status[index] = NO_STRUCTURE
                if status[index] == DONE:
                    eisner.trace(charts, lane, n, single_root, heads, False, state)
                    _mark(heads, n, arcs[index])
    else:
        for place in range(first * WIDTH, min(last * WIDTH, len(order))):
            if cancelled[0]:
                return
            index = order[place]
            n = sizes[index]
            lowest = check_sentence(values[index], n, status[index : index + 1])
            if status[index] == DONE and not arborescence.best_heads(values[index], n, lowest, single_root, heads):
                status[index] = NO_STRUCTURE
            if status[index] == DONE:
                _mark(heads, n, arcs[index])


@Kernel
def log_partition(values, sizes, order, first, last, projective, single_root, scratch, out, status, cancelled):  # type: ignore[no-untyped-def]
    """Writes log Z into `out (batch,)`."""
    size = sizes[order[first * WIDTH]]
    weights, offsets = charts_of(scratch, 0, 1, size + 1)[0], np.empty(WIDTH)
    charts = six_charts(scratch, 1, size if projective else 0)
    pivots = np.empty((size + 1, WIDTH))
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        gather_weights(values, rows, sizes, weights, offsets, status)
        if projective:
            eisner.inside(weights, size, single_root, charts, plus, times, 0.0, 1.0)
        else:
            attach_padding(weights, rows, sizes)
            matrix_tree.eliminate(weights, pivots, size, single_root)
        for lane in range(len(rows)):
            n = sizes[rows[lane]]
            if projective:
                total = charts[eisner.RIGHT][0, n, lane]
                _check_sum(total, n, rows[lane], status)
                out[rows[lane]] = np.log(total) + offsets[lane]
            else:
                check_pivots(pivots, n, lane, rows[lane], status)
                total = offsets[lane]
                for k in range(1, n + 1):
                    total += np.log(pivots[k, lane])
                out[rows[lane]] = total


@Kernel
def marginals(values, sizes, order, first, last, projective, single_root, scratch, out, status, cancelled):  # type: ignore[no-untyped-def]
    """Writes the probability of each arc into `out`, which is 0 on entry."""
    size = sizes[order[first * WIDTH]]
    three = charts_of(scratch, 0, 3, size + 1)
    weights, paths, arcs = three[0], three[1], three[2]
    offsets = np.empty(WIDTH)
    charts = six_charts(scratch, 3, size if projective else 0)
    flows = six_charts(scratch, 9, size if projective else 0)
    ends = np.empty((size + 1, WIDTH))  # the sums, or the pivots
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        gather_weights(values, rows, sizes, weights, offsets, status)
        if projective:
            projective_marginals(weights, rows, sizes, single_root, charts, flows, arcs, ends)
            check_sums(ends, rows, sizes, status)
        else:
            attach_padding(weights, rows, sizes)
            non_projective_marginals(weights, size, single_root, paths, arcs, ends)
            for lane in range(len(rows)):
                check_pivots(ends, sizes[rows[lane]], lane, rows[lane], status)
        scatter(arcs, rows, sizes, 0.0, 1.0, out, status)


@Kernel
def marginals_derivative(  # type: ignore[no-untyped-def]
    values, directions, sizes, order, first, last, projective, single_root, scratch, out, status, cancelled
):
    """Writes the derivative of the marginals along `directions` (as the scores) into `out`, which is 0 on entry."""
    size = sizes[order[first * WIDTH]]
    six = charts_of(scratch, 0, 6, size + 1)
    weights, paths, arcs = (six[0], six[1]), (six[2], six[3]), (six[4], six[5])
    offsets = np.empty(WIDTH)
    room = size if projective else 0
    charts = _paired(six_charts(scratch, 6, room), six_charts(scratch, 12, room))
    flows = _paired(six_charts(scratch, 18, room), six_charts(scratch, 24, room))
    ends = (np.empty((size + 1, WIDTH)), np.empty((size + 1, WIDTH)))
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        gather_weights(values, rows, sizes, weights[0], offsets, status)
        gather_derivatives(directions, rows, sizes, weights)
        if projective:
            projective_marginals(weights, rows, sizes, single_root, charts, flows, arcs, ends)
            check_sums(ends[0], rows, sizes, status)
        else:
            attach_padding(weights[0], rows, sizes)
            non_projective_marginals(weights, size, single_root, paths, arcs, ends)
            for lane in range(len(rows)):
                check_pivots(ends[0], sizes[rows[lane]], lane, rows[lane], status)
        scatter(arcs[1], rows, sizes, -np.inf, np.inf, out, status)


@Kernel
def sample(values, seeds, sizes, order, first, last, projective, single_root, scratch, heads, status, cancelled):  # type: ignore[no-untyped-def]
    """Draws `heads (samples, batch, n)`, each tree from a seed of `seeds (samples, batch)`, in uint64."""
    size = sizes[order[first * WIDTH]]
    two = charts_of(scratch, 0, 2, size + 1)
    weights, paths = two[0], two[1]
    offsets, pivots = np.empty(WIDTH), np.empty((size + 1, WIDTH))
    charts = six_charts(scratch, 2, size if projective else 0)
    state = np.empty(1, np.uint64)
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        gather_weights(values, rows, sizes, weights, offsets, status)
        if projective:
            eisner.inside(weights, size, single_root, charts, plus, times, 0.0, 1.0)
        else:
            attach_padding(weights, rows, sizes)
            _eliminated(weights, size, single_root, paths, pivots)
        for lane in range(len(rows)):
            index = rows[lane]
            n = sizes[index]
            if projective:
                _check_sum(charts[eisner.RIGHT][0, n, lane], n, index, status)
            else:
                check_pivots(pivots, n, lane, index, status)
            for turn in range(len(seeds)):
                if status[index] != DONE or n == 0 or cancelled[0]:
                    break
                state[0] = seeds[turn, index]
                if projective:
                    eisner.trace(charts, lane, n, single_root, heads[turn, index], True, state)
                else:
                    insertion.sample_heads(weights, paths, pivots, n, lane, single_root, heads[turn, index], state)


@part
def projective_marginals(weights, rows, sizes, single_root, charts, flows, arcs, ends):  # type: ignore[no-untyped-def]
    """Marginals into `arcs`, and Z into place 0 of `ends`."""
    size = sizes[rows[0]]
    eisner.inside(weights, size, single_root, charts, plus, times, 0.0, 1.0)
    for flow in flows:
        for i in range(size + 1):
            for k in range(size + 1):
                store(row(flow, i, 0), k, constant(ends, 0.0))
    for lane in range(WIDTH):
        n = sizes[rows[lane]] if lane < len(rows) else 0
        copy_lane(row(charts[eisner.RIGHT], 0, n), ends, lane)
        set_lane(row(flows[eisner.RIGHT], 0, n), lane, 1.0)
    eisner.outside(weights, size, single_root, charts, flows, arcs)
    for i in range(1, size + 1):
        probabilities = row(arcs, i, 0)
        for j in range(size + 1):
            if i != j:
                store(probabilities, j, over(load(probabilities, j), load(ends, 0)))


@part
def non_projective_marginals(weights, size, single_root, paths, arcs, pivots):  # type: ignore[no-untyped-def]
    """Marginals into `arcs`, and the pivots of the elimination, which leaves what it does in `paths`."""
    _eliminated(weights, size, single_root, paths, pivots)
    matrix_tree.derivatives(paths, pivots, arcs, size, single_root)
    for i in range(1, size + 1):
        probabilities = row(arcs, i, 0)
        for j in range(size + 1):
            store(probabilities, j, times(load(probabilities, j), load(row(weights, i, 0), j)))


@part
def _eliminated(weights, size, single_root, paths, pivots):  # type: ignore[no-untyped-def]
    for i in range(1, size + 1):
        for j in range(size + 1):
            store(row(paths, i, 0), j, load(row(weights, i, 0), j))
    matrix_tree.eliminate(paths, pivots, size, single_root)


@part
def six_charts(scratch, first, size):  # type: ignore[no-untyped-def]
    charts = charts_of(scratch, first, eisner.CHARTS, size + 1)
    return charts[0], charts[1], charts[2], charts[3], charts[4], charts[5]


@part
def _paired(a, b):  # type: ignore[no-untyped-def]
    return (a[0], b[0]), (a[1], b[1]), (a[2], b[2]), (a[3], b[3]), (a[4], b[4]), (a[5], b[5])


@part
def check_sentence(scores, n, status):  # type: ignore[no-untyped-def]
    """The lowest score that an arc may have; the `status` says what is wrong with a sentence's scores `(n, n + 1)`."""
    best, wrong = -np.inf, False
    for word in range(n):
        for head in range(n + 1):
            if head != word + 1:
                wrong |= not scores[word, head] <= LARGEST_SCORE
                best = max(best, scores[word, head])
    if n > 0 and (wrong or -np.inf < best < -LARGEST_SCORE):
        status[0] = NOT_FINITE
    elif n > 0 and best == -np.inf:
        status[0] = NO_STRUCTURE
    return reach_of(best)


@part
def attach_padding(weights, rows, sizes):  # type: ignore[no-untyped-def]
    """Gives words beyond a sentence one head each, so that they take part in the elimination and change nothing."""
    for lane in range(WIDTH):
        n = sizes[rows[lane]] if lane < len(rows) else 0
        for word in range(n + 1, sizes[rows[0]] + 1):
            weights[word, 1 if word > 1 else 0, lane] = 1.0


@part
def _check_sum(total, n, index, status):  # type: ignore[no-untyped-def]
    if not (total >= SMALLEST_SUM * TREES_PER_WORD**n and np.isfinite(total)) and status[index] == DONE:
        status[index] = OUT_OF_RANGE


@part
def check_sums(ends, rows, sizes, status):  # type: ignore[no-untyped-def]
    for lane in range(len(rows)):
        _check_sum(ends[0, lane], sizes[rows[lane]], rows[lane], status)


@part
def check_pivots(pivots, n, lane, index, status):  # type: ignore[no-untyped-def]
    for k in range(1, n + 1):
        if not (pivots[k, lane] >= SMALLEST_PIVOT and np.isfinite(pivots[k, lane])) and status[index] == DONE:
            status[index] = OUT_OF_RANGE


@part
def _mark(heads, n, arcs):  # type: ignore[no-untyped-def]
    for word in range(n):
        arcs[word, heads[word]] = 1
