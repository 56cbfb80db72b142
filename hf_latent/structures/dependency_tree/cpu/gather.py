"""Sentences of a batch into lanes, and back."""

import numpy as np

from hf_latent.inference.checks import LARGEST_SCORE, OUT_OF_REACH
from hf_latent.inference.cpu.batch import DONE, NO_STRUCTURE, NOT_FINITE, OUT_OF_RANGE
from hf_latent.inference.cpu.compiling import part
from hf_latent.inference.cpu.exponentials import exp
from hf_latent.inference.cpu.simd import (
    WIDTH,
    constant,
    forbidden_below,
    larger,
    load,
    minus,
    plus,
    replaced,
    row,
    store,
    times,
)


@part
def into_lanes(values, rows, sizes, no_arc, lanes):  # type: ignore[no-untyped-def]
    """`lanes[i, j, k]` from what `values[rows[k]]` has for j as the head of word i (from 1); `no_arc` where that cannot be."""
    size, count, width = sizes[rows[0]], len(rows), values.shape[2]
    flat = values.reshape(values.size)
    first, length = np.zeros(WIDTH, np.int64), np.zeros(WIDTH, np.int64)
    for lane in range(count):
        first[lane], length[lane] = rows[lane] * values.shape[1] * width, sizes[rows[lane]]
    lanes[0, : size + 1] = no_arc
    for word in range(size):
        for head in range(size + 1):
            for lane in range(WIDTH):
                if word < length[lane] and head <= length[lane] and head != word + 1:
                    lanes[word + 1, head, lane] = flat[first[lane] + head]
                else:
                    lanes[word + 1, head, lane] = no_arc
        for lane in range(WIDTH):
            first[lane] += width


@part
def gather_scores(values, rows, sizes, lanes, status):  # type: ignore[no-untyped-def]
    """Scores into lanes, -inf where there can be no arc; the `status` says which rows of the batch have wrong ones."""
    size = sizes[rows[0]]
    into_lanes(values, rows, sizes, -np.inf, lanes)
    first = row(lanes, 0, 0)
    zero, lowest, highest = constant(first, 0.0), constant(first, 0.0), constant(first, -np.inf)
    not_finite = zero
    for word in range(1, size + 1):
        scores = row(lanes, word, 0)
        for head in range(size + 1):
            score = load(scores, head)
            highest = larger(highest, score)
            score = replaced(score, -np.inf, 0.0)
            lowest = minus(zero, larger(minus(zero, lowest), minus(zero, score)))
            not_finite = plus(not_finite, times(score, zero))  # 0 times what is not finite is NaN
    found = np.empty((3, WIDTH))
    store(found, 0, highest)
    store(found, 1, lowest)
    store(found, 2, not_finite)
    far = False
    for lane in range(len(rows)):
        n, best = sizes[rows[lane]], found[0, lane]
        if n > 0 and not (found[2, lane] == 0.0 and (abs(best) <= LARGEST_SCORE or best == -np.inf)):
            status[rows[lane]] = NOT_FINITE
        elif n > 0 and best == -np.inf:
            status[rows[lane]] = NO_STRUCTURE
        found[0, lane] = reach_of(best)
        far |= found[1, lane] < found[0, lane]
    if far:
        for lane in range(len(rows), WIDTH):
            found[0, lane] = 0.0
        limit = load(found, 0)
        for word in range(1, size + 1):
            scores = row(lanes, word, 0)
            for head in range(size + 1):
                store(scores, head, forbidden_below(load(scores, head), limit))


@part
def reach_of(best):  # type: ignore[no-untyped-def]
    """The lowest score that is not taken for -inf beside a row's `best` one. See `hf_latent.inference.checks`."""
    return best - OUT_OF_REACH * max(abs(best), 1.0)


@part
def gather_weights(values, rows, sizes, lanes, offsets, status):  # type: ignore[no-untyped-def]
    """exp(score - the word's largest) into lanes, 0 where no arc may be; the sum of those largest into `offsets (WIDTH,)`."""
    size = sizes[rows[0]]
    gather_scores(values, rows, sizes, lanes, status)
    offsets[:] = 0.0
    highest = np.empty((1, WIDTH))
    for head in range(size + 1):
        store(row(lanes, 0, 0), head, constant(highest, 0.0))
    for word in range(1, size + 1):
        scores = row(lanes, word, 0)
        best = load(scores, 0)
        for head in range(1, size + 1):
            best = larger(best, load(scores, head))
        for head in range(size + 1):
            # A word beyond its sentence has no arc at all: NaN, of which `exp` makes 0 as well.
            store(scores, head, exp(minus(load(scores, head), best)))
        store(highest, 0, best)
        for lane in range(len(rows)):
            if word <= sizes[rows[lane]]:
                offsets[lane] += highest[0, lane]


@part
def gather_derivatives(directions, rows, sizes, weights):  # type: ignore[no-untyped-def]
    """The derivative of the weights along `directions`, into the second of the pair `weights`."""
    into_lanes(directions, rows, sizes, 0.0, weights[1])
    for word in range(sizes[rows[0]] + 1):
        value, derivative = row(weights[0], word, 0), row(weights[1], word, 0)
        for head in range(sizes[rows[0]] + 1):
            store(derivative, head, times(load(value, head), load(derivative, head)))


@part
def scatter(lanes, rows, sizes, lowest, highest, out, status):  # type: ignore[no-untyped-def]
    """The lanes back into rows of the batch, between `lowest` and `highest` (which only rounding exceeds)."""
    size, count, width = sizes[rows[0]], len(rows), out.shape[2]
    flat = out.reshape(out.size)
    first, length = np.zeros(WIDTH, np.int64), np.zeros(WIDTH, np.int64)
    for lane in range(count):
        first[lane], length[lane] = rows[lane] * out.shape[1] * width, sizes[rows[lane]]
    sums = np.zeros(WIDTH)
    for word in range(size):
        for head in range(size + 1):
            for lane in range(count):
                if word < length[lane] and head <= length[lane] and head != word + 1:
                    value = lanes[word + 1, head, lane]
                    sums[lane] += value * 0.0  # NaN if the value is not finite
                    flat[first[lane] + head] = min(max(value, lowest), highest)
        for lane in range(WIDTH):
            first[lane] += width
    for lane in range(count):
        if sums[lane] != 0.0 and status[rows[lane]] == DONE:
            status[rows[lane]] = OUT_OF_RANGE
