"""What Python calls: each operation on a range of groups of a batch.

`emissions (batch, n, tags)` and `transitions (batch, n - 1, tags²)`, or `(1, 1, tags²)` for all pairs alike, are float64, with
-inf for what is forbidden. `sizes (batch,)` are the lengths, and `order` lists the rows so that those of a group lie side by
side, longest first. `status (batch,)` tells how each row went, and where `cancelled (1,)` is set, nobody waits for the results.
"""

import numpy as np

from hf_latent.inference.cpu.batch import DONE, NO_STRUCTURE, OUT_OF_RANGE
from hf_latent.inference.cpu.compiling import Kernel, part
from hf_latent.inference.cpu.random import drawn
from hf_latent.inference.cpu.simd import WIDTH, chart
from hf_latent.structures.linear_chain.cpu.recursions import (
    LARGEST_FACTOR,
    gather,
    gather_derivatives,
    maxima,
    probabilities,
    sums,
    weigh,
)


def room(size: int, tags: int, shared: bool) -> int:
    """How many numbers (of `WIDTH` lanes) all kernels find room in, for sentences of `size` words: twice, with derivatives."""
    return 2 * (2 * size * tags + (2 if shared else size + 1) * tags * tags + 3 * tags)


@Kernel
def best_tags(emissions, transitions, sizes, order, first, last, scratch, found, status, cancelled):  # type: ignore[no-untyped-def]
    """Writes the tags of a best sequence into `found (batch, n)`."""
    shared, tags = _is_shared(transitions), emissions.shape[2]
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        nodes, best, pairs, _, _ = charts(scratch, 0, size, tags, shared)
        gather(emissions, rows, sizes, 0, nodes)
        gather(transitions, rows, sizes, 1, pairs)
        maxima(nodes, pairs, size, tags, best)
        for lane in range(len(rows)):
            index = rows[lane]
            tag = 0
            for i in range(sizes[index] - 1, -1, -1):
                highest, before = -np.inf, tag
                for t in range(tags):
                    score = best[i, t, lane]
                    if i < sizes[index] - 1:
                        score += pairs[min(i + 1, len(pairs)) - 1, t * tags + before, lane]
                    if score > highest:
                        highest, tag = score, t
                if highest == -np.inf:
                    status[index] = NO_STRUCTURE
                found[index, i] = tag


@Kernel
def log_partition(emissions, transitions, sizes, order, first, last, scratch, out, status, cancelled):  # type: ignore[no-untyped-def]
    """Writes log Z into `out (batch,)`."""
    shared, tags = _is_shared(transitions), emissions.shape[2]
    offsets = np.empty(WIDTH)
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        own = charts(scratch, 0, size, tags, shared)
        factors = np.empty((size, WIDTH))
        _sum_up(emissions, transitions, rows, sizes, own, factors, offsets, status)
        for lane in range(len(rows)):
            n = sizes[rows[lane]]
            if n > 0:
                total = offsets[lane] + np.log(own[1][n - 1, :, lane].sum())
                for i in range(n):
                    total -= np.log(factors[i, lane])
                out[rows[lane]] = total


@Kernel
def expectations(  # type: ignore[no-untyped-def]
    emissions, transitions, weights, sizes, order, first, last, scratch, nodes_out, pairs_out, status, cancelled
):
    """Writes each row's weight times the probabilities of its tags into `nodes_out`, and of its pairs into `pairs_out`.

    Both are 0 on entry. Where pairs are scored alike, `pairs_out (groups, 1, tags²)` gets their sum over each group.
    """
    shared, tags = _is_shared(transitions), emissions.shape[2]
    offsets, highest, ends = np.empty(WIDTH), np.empty((1, WIDTH)), np.empty((1, WIDTH))
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        nodes, alphas, pairs, flows, rest = charts(scratch, 0, size, tags, shared)
        factors = np.empty((size, WIDTH))
        gather(emissions, rows, sizes, 0, nodes)
        gather(transitions, rows, sizes, 1, pairs)
        weigh(nodes, rows, sizes, 0, False, offsets)
        weigh(pairs, rows, sizes, 1, shared, offsets)
        steps = len(pairs)
        sums(nodes, pairs, steps, size, tags, alphas, factors)
        probabilities(nodes, pairs, steps, flows, alphas, factors, rest[:2], rest[2], ends, rows, sizes, tags, True, highest)
        _check(highest, ends, rows, sizes, status)
        _scatter(alphas, rows, sizes, 0, weights, 1.0, nodes_out, status)
        if shared:
            _add_up(flows, rows, weights, pairs_out[group, 0], status)
        else:
            _scatter(flows, rows, sizes, 1, weights, 1.0, pairs_out, status)


@Kernel
def expectations_derivative(  # type: ignore[no-untyped-def]
    emissions, transitions, weights, node_directions, pair_directions,
    sizes, order, first, last, scratch, nodes_out, pairs_out, rates_out, status, cancelled,
):  # fmt: skip
    """Writes the derivatives of what `expectations` gives, along directions of the shapes of the scores.

    `rates_out (batch,)` gets the derivative of each row's log Z.
    """
    shared, tags = _is_shared(transitions), emissions.shape[2]
    offsets, highest = np.empty(WIDTH), np.empty((1, WIDTH))
    ends = (np.empty((1, WIDTH)), np.empty((1, WIDTH)))
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        values = charts(scratch, 0, size, tags, shared)
        moved = charts(scratch, len(scratch) // (2 * WIDTH), size, tags, shared)
        nodes, alphas, pairs, flows = (
            (values[0], moved[0]), (values[1], moved[1]), (values[2], moved[2]), (values[3], moved[3]),
        )  # fmt: skip
        factors = np.empty((size, WIDTH))
        gather(emissions, rows, sizes, 0, nodes[0])
        gather(transitions, rows, sizes, 1, pairs[0])
        weigh(nodes[0], rows, sizes, 0, False, offsets)
        weigh(pairs[0], rows, sizes, 1, shared, offsets)
        gather_derivatives(node_directions, rows, sizes, 0, nodes)
        gather_derivatives(pair_directions, rows, sizes, 1, pairs)
        steps = len(pairs[0])
        sums(nodes, pairs, steps, size, tags, alphas, factors)
        for lane in range(len(rows)):
            n = sizes[rows[lane]]
            if n > 0:
                rates_out[rows[lane]] = alphas[1][n - 1, :, lane].sum() / alphas[0][n - 1, :, lane].sum()
        betas, onward = (values[4][:2], moved[4][:2]), (values[4][2], moved[4][2])
        probabilities(nodes, pairs, steps, flows, alphas, factors, betas, onward, ends, rows, sizes, tags, True, highest)
        _check(highest, ends[0], rows, sizes, status)
        _scatter(alphas[1], rows, sizes, 0, weights, np.inf, nodes_out, status)
        if shared:
            _add_up(flows[1], rows, weights, pairs_out[group, 0], status)
        else:
            _scatter(flows[1], rows, sizes, 1, weights, np.inf, pairs_out, status)


@Kernel
def sample_tags(emissions, transitions, seeds, sizes, order, first, last, scratch, found, status, cancelled):  # type: ignore[no-untyped-def]
    """Draws `found (samples, batch, n)`, each sequence from a seed of `seeds (samples, batch)`, in uint64, going back."""
    shared, tags = _is_shared(transitions), emissions.shape[2]
    offsets, steps, state = np.empty(WIDTH), np.empty(tags), np.empty(1, np.uint64)
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        own = charts(scratch, 0, size, tags, shared)
        _sum_up(emissions, transitions, rows, sizes, own, np.empty((size, WIDTH)), offsets, status)
        alphas, pairs = own[1], own[2]
        for lane in range(len(rows)):
            index = rows[lane]
            for turn in range(len(seeds)):
                if status[index] != DONE or cancelled[0]:
                    break
                state[0] = seeds[turn, index]
                tag = 0
                for i in range(sizes[index] - 1, -1, -1):
                    for t in range(tags):
                        steps[t] = alphas[i, t, lane]
                        if i < sizes[index] - 1:
                            steps[t] *= pairs[min(i + 1, len(pairs)) - 1, t * tags + tag, lane]
                    tag = drawn(steps, state)
                    found[turn, index, i] = tag


@part
def _is_shared(transitions):  # type: ignore[no-untyped-def]
    return transitions.shape[0] == 1 and transitions.shape[1] == 1


@part
def charts(scratch, first, size, tags, shared):  # type: ignore[no-untyped-def]
    """Nodes, sums, pairs, the flows through them (0 where there is one row), and three rows for one word each."""
    steps = 1 if shared else max(size - 1, 0)
    nodes, sums = chart(scratch, first, size, tags), chart(scratch, first + size * tags, size, tags)
    rest = chart(scratch, first + 2 * size * tags, 3, tags)
    first += (2 * size + 3) * tags
    pairs = chart(scratch, first, steps, tags * tags)
    flows = pairs
    if steps == 1:
        flows = chart(scratch, first + tags * tags, 1, tags * tags)
        flows[:] = 0.0
    return nodes, sums, pairs, flows, rest


@part
def _sum_up(emissions, transitions, rows, sizes, own, factors, offsets, status):  # type: ignore[no-untyped-def]
    """The sums over all beginnings into the charts; the `status` says which rows are out of range."""
    nodes, alphas, pairs, flows, rest = own
    offsets[:] = 0.0
    size, tags, steps = len(nodes), emissions.shape[2], len(pairs)
    gather(emissions, rows, sizes, 0, nodes)
    gather(transitions, rows, sizes, 1, pairs)
    uncertain = weigh(nodes, rows, sizes, 0, False, offsets)
    uncertain |= weigh(pairs, rows, sizes, 1, _is_shared(transitions), offsets)
    uncertain |= sums(nodes, pairs, steps, size, tags, alphas, factors)
    for lane in range(len(rows)):
        n = sizes[rows[lane]]
        if n > 0 and not alphas[n - 1, :, lane].sum() > 0.0:  # all is forbidden, or was lost
            status[rows[lane]] = OUT_OF_RANGE
    highest, ends = np.empty((1, WIDTH)), np.empty((1, WIDTH))
    if uncertain:
        probabilities(nodes, pairs, steps, flows, alphas, factors, rest[:2], rest[2], ends, rows, sizes, tags, False, highest)
        _check(highest, ends, rows, sizes, status)


@part
def _check(highest, ends, rows, sizes, status):  # type: ignore[no-untyped-def]
    for lane in range(len(rows)):
        if sizes[rows[lane]] > 0 and not highest[0, lane] <= LARGEST_FACTOR:
            status[rows[lane]] = OUT_OF_RANGE


@part
def _scatter(lanes, rows, sizes, fewer, weights, bound, out, status):  # type: ignore[no-untyped-def]
    """The lanes back into rows of the batch, times their weights; rounding apart, they are below `bound`."""
    lowest = 0.0 if bound == 1.0 else -bound
    for lane in range(len(rows)):
        index = rows[lane]
        if status[index] == DONE:
            for i in range(sizes[index] - fewer):
                for k in range(out.shape[2]):
                    out[index, i, k] = weights[index] * min(max(lanes[i, k, lane], lowest), bound)


@part
def _add_up(flows, rows, weights, out, status):  # type: ignore[no-untyped-def]
    for lane in range(len(rows)):
        if status[rows[lane]] == DONE:
            for k in range(len(out)):
                out[k] += weights[rows[lane]] * flows[0, k, lane]
