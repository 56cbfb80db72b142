"""What Python calls: sums over subsets, row by row.

`within` and `without (batch, n)` are the weights, at most 1, of items that are chosen and that are not, and
`ends (batch, largest + 1)` those of how many are chosen in all; 0 for what may not be. The best subset has a weight of 1, also
in each part of the row, so that sums of up to `LONGEST` items need no logarithms: what is too small for a number is nothing
beside it. `sizes (batch,)` are the lengths, and `most (batch,)` the largest numbers of chosen items. A *table* has, for each
item, sums by how many items are chosen. Where `cancelled (1,)` is set, nobody waits for the results.
"""

import numpy as np

from hf_latent.inference.cpu.compiling import Kernel, part

# A row has at most 2^n subsets, and 2^900 leaves room for their derivatives. What is smaller than the smallest number, and so
# lost, is nothing beside the best subset, even 2^900 times.
LONGEST = 900


@Kernel
def log_partition(within, without, ends, sizes, most, first, last, out, cancelled):  # type: ignore[no-untyped-def]
    """Writes log Z into `out (batch,)`."""
    for row in range(first, last):
        if cancelled[0]:
            return
        onward = _onward(within[row], without[row], ends[row], sizes[row], most[row])
        out[row] = np.log(onward[0, 0])


@Kernel
def marginals(within, without, ends, sizes, most, first, last, out, cancelled):  # type: ignore[no-untyped-def]
    """Writes the probability of each item into `out (batch, n)`, which is 0 on entry."""
    for row in range(first, last):
        if cancelled[0]:
            return
        n, own, counts = sizes[row], within[row], most[row]
        before = _before(own, without[row], n, counts)
        onward = _onward(own, without[row], ends[row], n, counts)
        for item in range(n):
            total = 0.0
            for count in range(counts):
                total += before[item, count] * onward[item + 1, count + 1]
            out[row, item] = min(own[item] * total / onward[0, 0], 1.0)


@Kernel
def marginals_derivative(within, without, ends, sizes, most, directions, first, last, out, cancelled):  # type: ignore[no-untyped-def]
    """Writes the derivatives of the marginals along `directions (batch, n)` into `out (batch, n)`, which is 0 on entry."""
    for row in range(first, last):
        if cancelled[0]:
            return
        n, own, along, counts = sizes[row], within[row], directions[row], most[row]
        before = _before(own, without[row], n, counts)
        onward = _onward(own, without[row], ends[row], n, counts)
        before_moves, onward_moves = _moves(own, without[row], along, n, counts, before, onward)
        whole = onward[0, 0]
        for item in range(n):
            total, moved = 0.0, 0.0
            for count in range(counts):
                one, other = before[item, count], onward[item + 1, count + 1]
                total += one * other
                moved += before_moves[item, count] * other + one * onward_moves[item + 1, count + 1]
            chance = own[item] * total / whole
            if own[item] > 0.0:
                out[row, item] = own[item] * moved / whole + chance * (along[item] - onward_moves[0, 0] / whole)


@part
def _before(within, without, n, most):  # type: ignore[no-untyped-def]
    """`table[i, c]` over all ways to choose c of the items before i."""
    table = np.zeros((n + 1, most + 1))
    table[0, 0] = 1.0
    for item in range(n):
        taken, left = within[item], without[item]
        table[item + 1, 0] = table[item, 0] * left
        for count in range(1, most + 1):
            table[item + 1, count] = table[item, count] * left + table[item, count - 1] * taken
    return table


@part
def _onward(within, without, ends, n, most):  # type: ignore[no-untyped-def]
    """`table[i, c]` over all ways to go on from item i, when c are chosen before it."""
    table = np.zeros((n + 1, most + 2))
    table[n, : most + 1] = ends[: most + 1]
    for item in range(n - 1, -1, -1):
        taken, left = within[item], without[item]
        for count in range(most + 1):
            table[item, count] = table[item + 1, count] * left + table[item + 1, count + 1] * taken
    return table


@part
def _moves(within, without, along, n, most, before, onward):  # type: ignore[no-untyped-def]
    """The derivatives of both tables. (A score moves the weight of its item where that is chosen.)"""
    before_moves, onward_moves = np.zeros(before.shape), np.zeros(onward.shape)
    for item in range(n):
        taken, left = within[item], without[item]
        moved = taken * along[item] if taken > 0.0 else 0.0
        before_moves[item + 1, 0] = before_moves[item, 0] * left
        for count in range(1, most + 1):
            longer = before_moves[item, count - 1] * taken + before[item, count - 1] * moved
            before_moves[item + 1, count] = before_moves[item, count] * left + longer
    for item in range(n - 1, -1, -1):
        taken, left = within[item], without[item]
        moved = taken * along[item] if taken > 0.0 else 0.0
        for count in range(most + 1):
            longer = onward_moves[item + 1, count + 1] * taken + onward[item + 1, count + 1] * moved
            onward_moves[item, count] = onward_moves[item + 1, count] * left + longer
    return before_moves, onward_moves
