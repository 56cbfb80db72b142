"""Projective trees: Eisner's algorithm, compiled. See `reference.eisner` for the recursion.

One loop fills the charts for maxima (`larger`, `plus`) and for sums (`plus`, `times`), eight sentences at a time. Each kind of
span is kept so that all its splits lie side by side: complete spans by their start and by their end.
"""

import numpy as np

from hf_latent.inference.cpu import random
from hf_latent.inference.cpu.compiling import part
from hf_latent.inference.cpu.simd import constant, increase, load, plus, row, store, times

# C(i -> k) at [i, k], the same at [k, i]; C(j -> k) at [j, k], the same at [k, j]; I(i -> k) at [i, k]; I(j -> k) at [j, k].
RIGHT, RIGHT_BY_END, LEFT, LEFT_BY_END, RIGHT_ARC, LEFT_ARC = range(6)
CHARTS = 6

# Spans whose starts, and whose ends, lie in a stretch of so many words come one after the other, so that the rows that they
# share are still in the cache.
TILE = 8


@part
def inside(weights, size, single_root, charts, add, multiply, nothing, unit):  # type: ignore[no-untyped-def]
    """Fills the `charts`, from `weights[i, j]` of j as the head of i (both from 0 to size; i = 0 does not count)."""
    right, right_by_end, left, left_by_end, right_arc, left_arc = charts
    one = constant(row(right, 0, 0), unit)
    zero = constant(row(right, 0, 0), nothing)
    for i in range(size + 1):
        for chart in (right, right_by_end, left, left_by_end):
            store(row(chart, i, 0), i, one)
    for end in range(0, size + 1, TILE):
        for start in range(end, -1, -TILE):
            for j in range(max(end, 1), min(end + TILE, size + 1)):
                for i in range(min(start + TILE, j) - 1, max(start, 1) - 1, -1):
                    outer, inner = row(right, i, i), row(left, j, i + 1)
                    arcs_right, rest_right = row(right_arc, i, i + 1), row(right_by_end, j, i + 1)
                    rest_left, arcs_left = row(left_by_end, i, i + 1), row(left_arc, j, i + 1)
                    # All splits of the three kinds of spans between i and j, but for the arcs between i and j themselves.
                    arc = multiply(load(outer, 0), load(inner, 0))
                    to_right, to_left = zero, zero
                    for k in range(j - i - 1):
                        arc = add(arc, multiply(load(outer, k + 1), load(inner, k + 1)))
                        to_right = add(to_right, multiply(load(arcs_right, k), load(rest_right, k)))
                        to_left = add(to_left, multiply(load(rest_left, k), load(arcs_left, k)))
                    arc_right = multiply(arc, load(row(weights, j, 0), i))
                    arc_left = multiply(arc, load(row(weights, i, 0), j))
                    to_right, to_left = add(to_right, arc_right), add(to_left, arc_left)
                    store(row(right_arc, i, 0), j, arc_right)
                    store(row(left_arc, j, 0), i, arc_left)
                    store(row(right, i, 0), j, to_right)
                    store(row(right_by_end, j, 0), i, to_right)
                    store(row(left, j, 0), i, to_left)
                    store(row(left_by_end, i, 0), j, to_left)
                if start > 0:
                    continue
                # ROOT: it has no head, and if it is to have one arc, nothing may hang from it already when that is added.
                outer, inner = row(right, 0, 0), row(left, j, 1)
                arcs_right, rest_right = row(right_arc, 0, 1), row(right_by_end, j, 1)
                arc, to_right = multiply(load(outer, 0), load(inner, 0)), zero
                for k in range(1, 1 if single_root else j):
                    arc = add(arc, multiply(load(outer, k), load(inner, k)))
                for k in range(j - 1):
                    to_right = add(to_right, multiply(load(arcs_right, k), load(rest_right, k)))
                arc_right = multiply(arc, load(row(weights, j, 0), 0))
                to_right = add(to_right, arc_right)
                store(row(right_arc, 0, 0), j, arc_right)
                store(row(right, 0, 0), j, to_right)
                store(row(right_by_end, j, 0), 0, to_right)
                for chart in (left, left_arc):
                    store(row(chart, j, 0), 0, zero)
                store(row(left_by_end, 0, 0), j, zero)


@part
def outside(weights, size, single_root, charts, flows, arcs):  # type: ignore[no-untyped-def]
    """Z · the marginal of each arc into `arcs` (indexed as `weights`), from the charts of sums that `inside` has filled.

    `flows` is the derivative of Z in each span: on entry 0, and 1 for the span over the sentence, `flows[RIGHT][0, n]`.
    """
    right, right_by_end, left, left_by_end, right_arc, left_arc = charts
    flow_right, flow_right_by_end, flow_left, flow_left_by_end, flow_right_arc, flow_left_arc = flows
    for end in range(size // TILE * TILE, -1, -TILE):
        for start in range(0, end + 1, TILE):
            for j in range(min(end + TILE - 1, size), max(end, 1) - 1, -1):
                for i in range(start, min(start + TILE, j)):
                    to_right = plus(load(row(flow_right, i, 0), j), load(row(flow_right_by_end, j, 0), i))
                    to_left = plus(load(row(flow_left, j, 0), i), load(row(flow_left_by_end, i, 0), j))
                    arcs_right, rest_right = row(right_arc, i, i + 1), row(right_by_end, j, i + 1)
                    rest_left, arcs_left = row(left_by_end, i, i + 1), row(left_arc, j, i + 1)
                    flow_arcs_right, flow_rest_right = row(flow_right_arc, i, i + 1), row(flow_right_by_end, j, i + 1)
                    flow_rest_left, flow_arcs_left = row(flow_left_by_end, i, i + 1), row(flow_left_arc, j, i + 1)
                    for k in range(j - i - 1):
                        increase(flow_arcs_right, k, times(to_right, load(rest_right, k)))
                        increase(flow_rest_right, k, times(to_right, load(arcs_right, k)))
                        increase(flow_rest_left, k, times(to_left, load(arcs_left, k)))
                        increase(flow_arcs_left, k, times(to_left, load(rest_left, k)))
                    to_right = plus(to_right, load(row(flow_right_arc, i, 0), j))
                    to_left = plus(to_left, load(row(flow_left_arc, j, 0), i))
                    store(row(arcs, j, 0), i, times(to_right, load(row(right_arc, i, 0), j)))
                    store(row(arcs, i, 0), j, times(to_left, load(row(left_arc, j, 0), i)))
                    flow = plus(times(to_right, load(row(weights, j, 0), i)), times(to_left, load(row(weights, i, 0), j)))
                    outer, inner = row(right, i, i), row(left, j, i + 1)
                    flow_outer, flow_inner = row(flow_right, i, i), row(flow_left, j, i + 1)
                    for k in range(1 if single_root and i == 0 else j - i):
                        increase(flow_outer, k, times(flow, load(inner, k)))
                        increase(flow_inner, k, times(flow, load(outer, k)))


@part
def trace(charts, lane, n, single_root, heads, draw, state):  # type: ignore[no-untyped-def]
    """Writes a head for each word into `heads (n,)`: those of a best tree, from the charts of maxima.

    Or, with `draw`, those of a tree drawn at random from the charts of sums; `state (1,)` is that of the random numbers.
    """
    right, right_by_end, left, left_by_end, right_arc, left_arc = charts
    stack = np.empty((2 * n + 3, 2), np.int64)  # complete spans: from a head to an end
    stack[0, 0], stack[0, 1] = 0, n
    size = 1 if n > 0 else 0
    while size > 0:
        size -= 1
        head, end = stack[size, 0], stack[size, 1]
        if head < end:
            word = (
                head
                + 1
                + _choose(right_arc[head, head + 1 :, lane], right_by_end[end, head + 1 :, lane], end - head, draw, state)
            )
        else:
            word = end + _choose(left_by_end[end, end:, lane], left_arc[head, end:, lane], head - end, draw, state)
        heads[word - 1] = head
        i, j = min(head, word), max(head, word)
        k = i + _choose(right[i, i:, lane], left[j, i + 1 :, lane], 1 if single_root and i == 0 else j - i, draw, state)
        for start, stop in ((word, end), (i, k), (j, k + 1)):
            if start != stop:
                stack[size, 0], stack[size, 1] = start, stop
                size += 1


@part
def _choose(a, b, count, draw, state):  # type: ignore[no-untyped-def]
    """A split: the (first) best one, or a random one."""
    place = 0
    if not draw:
        best = -np.inf
        for k in range(count):
            if a[k] + b[k] > best:
                best, place = a[k] + b[k], k
        return place
    total = 0.0
    for k in range(count):
        total += a[k] * b[k]
    rest = random.uniform(state) * total
    for k in range(count):
        if a[k] * b[k] > 0.0:  # never a split of probability 0, whatever the rounding
            place = k
            rest -= a[k] * b[k]
            if rest < 0.0:
                break
    return place
