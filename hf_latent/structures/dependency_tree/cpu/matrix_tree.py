"""Non-projective trees: the matrix-tree theorem without a subtraction, compiled. See `reference.matrix_tree`.

In place, on weights instead of their logarithms, eight sentences at a time. `arcs[i, j]` weighs j as the head of word i (from
1; column 0 is ROOT).
"""

from hf_latent.inference.cpu.compiling import part
from hf_latent.inference.cpu.simd import constant, increase, load, over, plus, row, store, times


@part
def eliminate(arcs, pivots, size, single_root):  # type: ignore[no-untyped-def]
    """Eliminates words from the last to the first. Row and column of each stay as they were at its turn.

    Z is the product of the `pivots`, a row with one for each word from 1.
    """
    for k in range(size, 0, -1):
        through = row(arcs, k, 0)
        first = 1 if single_root and k > 1 else 0
        pivot = load(through, first)
        for j in range(first + 1, k):
            pivot = plus(pivot, load(through, j))
        store(pivots, k, pivot)
        for i in range(1, k):
            word = row(arcs, i, 0)
            share = over(load(word, k), pivot)
            for j in range(k):
                increase(word, j, times(share, load(through, j)))
            store(word, i, constant(word, 0.0))  # a word that would come to head itself has closed a cycle


@part
def derivatives(arcs, pivots, flows, size, single_root):  # type: ignore[no-untyped-def]
    """d log Z / d weight into `flows` (as `arcs`): the elimination run backwards. (Times the weights, the marginals.)"""
    zero = constant(pivots, 0.0)
    for k in range(1, size + 1):
        through, flow_through = row(arcs, k, 0), row(flows, k, 0)
        for j in range(size + 1):
            store(flow_through, j, zero)
        pivot = load(pivots, k)
        rest = constant(pivots, 1.0)
        for i in range(1, k):
            word, flow = row(arcs, i, 0), row(flows, i, 0)
            share = over(load(word, k), pivot)
            store(flow, i, zero)
            passed = zero
            for j in range(k):
                passed = plus(passed, times(load(flow, j), load(through, j)))
                increase(flow_through, j, times(load(flow, j), share))
            store(flow, k, over(passed, pivot))
            rest = plus(rest, times(times(constant(word, -1.0), share), passed))
        for j in range(1 if single_root and k > 1 else 0, k):
            increase(flow_through, j, over(rest, pivot))
