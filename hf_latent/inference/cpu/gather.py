"""Sentences of a batch into lanes, and back."""

import numpy as np

from hf_latent.inference.checks import LARGEST_SCORE
from hf_latent.inference.cpu.compiling import part
from hf_latent.inference.cpu.lanes import (
    WIDTH,
    constant,
    exp,
    larger,
    load,
    minus,
    plus,
    replaced,
    row,
    store,
    times,
)

# What a row of the batch can come to.
DONE, NOT_FINITE, OUT_OF_RANGE, NOT_CONVERGED, NO_TREE = 0, 1, 2, 3, 4

NO_ARC = -1.0625e300  # stands where no arc may be; far beyond what scores can be


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
    """Scores into lanes; the `status` says which rows of the batch have some that are not finite."""
    size = sizes[rows[0]]
    into_lanes(values, rows, sizes, NO_ARC, lanes)
    first = row(lanes, 0, 0)
    zero = constant(first, 0.0)
    largest, not_finite = zero, zero
    for word in range(1, size + 1):
        scores = row(lanes, word, 0)
        for head in range(size + 1):
            score = replaced(load(scores, head), NO_ARC, 0.0)
            largest = larger(largest, larger(score, minus(zero, score)))
            not_finite = plus(not_finite, times(score, zero))  # 0 times what is not finite is NaN
    found = np.empty((2, WIDTH))
    store(found, 0, largest)
    store(found, 1, not_finite)
    for lane in range(len(rows)):
        if not (found[0, lane] <= LARGEST_SCORE and found[1, lane] == 0.0):
            status[rows[lane]] = NOT_FINITE


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
            # A word beyond its sentence has no arc at all; its weights are 0 as well.
            difference = minus(replaced(load(scores, head), NO_ARC, -np.inf), best)
            store(scores, head, exp(difference))
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
