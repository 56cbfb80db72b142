"""The recursions over a sentence, eight sentences at a time: `WIDTH` lanes, each of its own length.

A group of sentences has `nodes[i, t]`, a number for tag t of word i, and `pairs[i, t · tags + u]`, one for the tags t and u of
the words i and i + 1; there is a single row of pairs where all words share it. Numbers are scores for maxima, and weights (exp
of scores, the largest of each row at 1) for sums, which are scaled at every word. Beyond a sentence, nodes are neutral, and
what comes back from there is 0.
"""

import numpy as np

from hf_latent.inference.cpu.compiling import part
from hf_latent.inference.cpu.exponentials import exp
from hf_latent.inference.cpu.simd import (
    WIDTH,
    constant,
    copy_lane,
    increase,
    larger,
    load,
    minus,
    over,
    plus,
    replaced,
    row,
    scaled,
    store,
    times,
    value,
)

# A word's largest sum is scaled to 1, and its smallest may be lost when it falls below the smallest number. Where scores differ
# by no more than `LARGEST_GAP`, none does so within one word unless it is below `SMALLEST_SUM` at the word before.
LARGEST_GAP, SMALLEST_SUM = 150.0, 1e-170
# What is lost does not count where sums from the other end, by which it would be multiplied, are smaller than this.
LARGEST_FACTOR = 1e250


@part
def gather(values, rows, sizes, fewer, lanes):  # type: ignore[no-untyped-def]
    """`lanes[i, k]` from `values[row, i, k]`, 0 beyond a sentence, which has `fewer` such rows than words.

    Where `values` has one row for all, `lanes` has one row as well.
    """
    shared = len(values) == 1 and len(lanes) == 1
    for i in range(len(lanes)):
        for lane in range(WIDTH):
            if shared:
                for k in range(values.shape[2]):
                    lanes[0, k, lane] = values[0, 0, k]
            elif lane < len(rows) and i < sizes[rows[lane]] - fewer:
                for k in range(values.shape[2]):
                    lanes[i, k, lane] = values[rows[lane], i, k]
            else:
                for k in range(values.shape[2]):
                    lanes[i, k, lane] = 0.0


@part
def weigh(lanes, rows, sizes, fewer, shared, offsets):  # type: ignore[no-untyped-def]
    """Makes scores weights, and adds what was the largest of each row to the `offsets (WIDTH,)`; whether scores differ much."""
    kept = np.empty((2, WIDTH))
    zero = constant(kept, 0.0)
    largest_gap = zero
    for i in range(len(lanes)):
        scores = row(lanes, i, 0)
        highest = load(scores, 0)
        for k in range(1, lanes.shape[1]):
            highest = larger(load(scores, k), highest)
        highest = replaced(highest, -np.inf, 0.0)
        for k in range(lanes.shape[1]):
            below = minus(load(scores, k), highest)
            largest_gap = larger(minus(zero, replaced(below, -np.inf, 0.0)), largest_gap)
            store(scores, k, exp(below))
        store(kept, 0, highest)
        for lane in range(len(rows)):
            count = sizes[rows[lane]] - fewer
            if shared:
                offsets[lane] += kept[0, lane] * max(count, 0)
            elif i < count:
                offsets[lane] += kept[0, lane]
    store(kept, 1, largest_gap)
    return kept[1].max() > LARGEST_GAP


@part
def gather_derivatives(directions, rows, sizes, fewer, lanes):  # type: ignore[no-untyped-def]
    """The derivatives of the weights along `directions`, into the second of the pair `lanes`."""
    gather(directions, rows, sizes, fewer, lanes[1])
    weights, derivatives = lanes[0].reshape(lanes[0].size), lanes[1].reshape(lanes[1].size)
    for k in range(len(weights)):
        derivatives[k] = derivatives[k] * weights[k] if weights[k] > 0.0 else 0.0


@part
def extend(before, step, own, now, tags, add, multiply, nothing):  # type: ignore[no-untyped-def]
    """The sums (or maxima) over all that ends in each tag of a word, from those of the word before."""
    for u in range(tags):
        store(now, u, constant(now, nothing))
    for t in range(tags):
        x = load(before, t)
        for u in range(tags):
            store(now, u, add(load(now, u), multiply(x, load(step, t * tags + u))))
    for u in range(tags):
        store(now, u, multiply(load(now, u), load(own, u)))


@part
def maxima(nodes, pairs, size, tags, best):  # type: ignore[no-untyped-def]
    """`best[i, t]`, the score of the best beginning that ends in tag t of word i, less that of the best of all."""
    for i in range(size):
        now = row(best, i, 0)
        if i == 0:
            for t in range(tags):
                store(now, t, load(row(nodes, 0, 0), t))
        else:
            step = row(pairs, min(i, len(pairs)) - 1, 0)
            extend(row(best, i - 1, 0), step, row(nodes, i, 0), now, tags, larger, plus, -np.inf)
        highest = load(now, 0)
        for t in range(1, tags):
            highest = larger(load(now, t), highest)
        highest = replaced(highest, -np.inf, 0.0)
        for t in range(tags):
            store(now, t, minus(load(now, t), highest))


@part
def sums(nodes, pairs, steps, size, tags, alphas, factors):  # type: ignore[no-untyped-def]
    """`alphas[i, t]`, the sum over all that ends in tag t of word i, times all `factors` up to i; whether some may be lost.

    There are so many rows `steps` of pairs.
    """
    kept = np.empty((1, WIDTH))
    zero, one = constant(kept, 0.0), constant(kept, 1.0)
    least = minus(zero, one)
    for i in range(size):
        now = row(alphas, i, 0)
        if i == 0:
            for t in range(tags):
                store(now, t, load(row(nodes, 0, 0), t))
        else:
            step = row(pairs, min(i, steps) - 1, 0)
            extend(row(alphas, i - 1, 0), step, row(nodes, i, 0), now, tags, plus, times, 0.0)
        highest = constant(kept, 1e-300)
        for t in range(tags):
            highest = larger(value(load(now, t)), highest)
        factor = over(one, highest)
        store(factors, i, factor)
        for t in range(tags):
            x = scaled(load(now, t), factor)
            store(now, t, x)
            least = larger(minus(zero, replaced(value(x), 0.0, 1.0)), least)
    store(kept, 0, least)
    return kept[0].max() > -SMALLEST_SUM


@part
def back(own, after, step, factor, onward, before, tags):  # type: ignore[no-untyped-def]
    """The sums `before` over all that goes on from each tag of a word, from those `after` the next, whose nodes are `own`."""
    for u in range(tags):
        store(onward, u, scaled(times(load(own, u), load(after, u)), factor))
    for t in range(tags):
        total, other = times(load(step, t * tags), load(onward, 0)), constant(before, 0.0)
        for u in range(1, tags - 1, 2):
            total = plus(total, times(load(step, t * tags + u), load(onward, u)))
            other = plus(other, times(load(step, t * tags + u + 1), load(onward, u + 1)))
        if tags % 2 == 0:
            other = plus(other, times(load(step, t * tags + tags - 1), load(onward, tags - 1)))
        store(before, t, plus(total, other))


@part
def end_here(alphas, betas, place, ends, rows, sizes, i, tags):  # type: ignore[no-untyped-def]
    """In the lanes whose last word is i, `betas[place]` become 1 / Z: their products with alphas are probabilities."""
    for lane in range(len(rows)):
        if sizes[rows[lane]] == i + 1:
            total = load(row(alphas, i, 0), 0)
            for t in range(1, tags):
                total = plus(total, load(row(alphas, i, 0), t))
            store(ends, 0, over(constant(ends, 1.0), total))
            for t in range(tags):
                copy_lane(ends, row(betas, place, t), lane)


@part
def probabilities(  # type: ignore[no-untyped-def]
    nodes, pairs, steps, flows, alphas, factors, betas, onward, ends, rows, sizes, tags, wanted, highest
):
    """Turns `alphas` into the probability of each tag, and writes those of pairs into `flows`, if they are `wanted`.

    `flows` has the rows of the pairs, and may be them unless there is one: that is 0 on entry, and words add to it.
    `highest (1, WIDTH)` is the largest factor that a lost sum would have had.
    """
    size = sizes[rows[0]]
    most = constant(highest, 0.0)
    for i in range(size - 1, -1, -1):
        now, after = (i + 1) % 2, i % 2
        place = min(i + 1, steps) - 1
        if i == size - 1:
            for t in range(tags):
                store(row(betas, now, 0), t, constant(onward, 0.0))
        else:
            step = row(pairs, place, 0)
            back(row(nodes, i + 1, 0), row(betas, after, 0), step, load(factors, i + 1), onward, row(betas, now, 0), tags)
            for t in range(tags):
                most = larger(value(load(onward, t)), most)
        end_here(alphas, betas, now, ends, rows, sizes, i, tags)
        beta, alpha = row(betas, now, 0), row(alphas, i, 0)
        if wanted and i < size - 1:
            step, flow = row(pairs, place, 0), row(flows, place, 0)
            for t in range(tags):
                x = load(alpha, t)
                for u in range(tags):
                    found = times(times(x, load(onward, u)), load(step, t * tags + u))
                    if steps == 1:
                        increase(flow, t * tags + u, found)
                    else:
                        store(flow, t * tags + u, found)
        for t in range(tags):
            most = larger(value(load(beta, t)), most)
            if wanted:
                store(alpha, t, times(load(alpha, t), load(beta, t)))
    store(highest, 0, most)
