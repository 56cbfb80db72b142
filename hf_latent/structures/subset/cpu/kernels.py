"""What Python calls: log-sums over subsets, row by row.

`within` and `without (batch, n)` are the log-weights, in float64, of items that are chosen and that are not, and
`ends (batch, largest + 1)` those of how many are chosen in all; -inf for what may not be. `sizes (batch,)` are the lengths, and
`most (batch,)` the largest numbers of chosen items. A *table* has, for each item, log-sums by how many items are chosen. Where
`cancelled (1,)` is set, nobody waits for the results.
"""

import numpy as np

from hf_latent.inference.cpu.compiling import Kernel, part


@Kernel
def log_partition(within, without, ends, sizes, most, first, last, out, cancelled):  # type: ignore[no-untyped-def]
    """Writes log Z into `out (batch,)`."""
    for row in range(first, last):
        if cancelled[0]:
            return
        onward = _onward(within[row], without[row], ends[row], sizes[row], most[row])
        out[row] = onward[0, 0]


@Kernel
def marginals(within, without, ends, sizes, most, first, last, out, cancelled):  # type: ignore[no-untyped-def]
    """Writes the probability of each item into `out (batch, n)`, which is 0 on entry."""
    for row in range(first, last):
        if cancelled[0]:
            return
        n, own = sizes[row], within[row]
        before = _before(own, without[row], n, most[row])
        onward = _onward(own, without[row], ends[row], n, most[row])
        for item in range(n):
            if own[item] > -np.inf:
                total = 0.0
                for count in range(min(item, most[row] - 1) + 1):
                    total += np.exp(before[item, count] + own[item] + onward[item + 1, count + 1] - onward[0, 0])
                out[row, item] = min(total, 1.0)


@Kernel
def marginals_derivative(within, without, ends, sizes, most, directions, first, last, out, cancelled):  # type: ignore[no-untyped-def]
    """Writes the derivatives of the marginals along `directions (batch, n)` into `out (batch, n)`, which is 0 on entry."""
    for row in range(first, last):
        if cancelled[0]:
            return
        n, own, along = sizes[row], within[row], directions[row]
        before = _before(own, without[row], n, most[row])
        onward = _onward(own, without[row], ends[row], n, most[row])
        before_moves, onward_moves = _moves(own, along, n, most[row], before, onward)
        for item in range(n):
            if own[item] > -np.inf:
                total = 0.0
                for count in range(min(item, most[row] - 1) + 1):
                    chance = np.exp(before[item, count] + own[item] + onward[item + 1, count + 1] - onward[0, 0])
                    if chance > 0.0:
                        moves = before_moves[item, count] + along[item] + onward_moves[item + 1, count + 1]
                        total += chance * (moves - onward_moves[0, 0])
                out[row, item] = total


@part
def _add(x, y):  # type: ignore[no-untyped-def]
    """log(exp x + exp y)."""
    high, low = max(x, y), min(x, y)
    return high if low == -np.inf else high + np.log1p(np.exp(low - high))


@part
def _before(within, without, n, most):  # type: ignore[no-untyped-def]
    """`table[i, c]` over all ways to choose c of the items before i."""
    table = np.full((n + 1, most + 1), -np.inf)
    table[0, 0] = 0.0
    for item in range(n):
        table[item + 1, 0] = table[item, 0] + without[item]
        for count in range(1, min(item + 1, most) + 1):
            table[item + 1, count] = _add(table[item, count] + without[item], table[item, count - 1] + within[item])
    return table


@part
def _onward(within, without, ends, n, most):  # type: ignore[no-untyped-def]
    """`table[i, c]` over all ways to go on from item i, when c are chosen before it."""
    table = np.full((n + 1, most + 2), -np.inf)
    table[n, : most + 1] = ends[: most + 1]
    for item in range(n - 1, -1, -1):
        for count in range(min(item, most) + 1):
            table[item, count] = _add(table[item + 1, count] + without[item], table[item + 1, count + 1] + within[item])
    return table


@part
def _moves(within, along, n, most, before, onward):  # type: ignore[no-untyped-def]
    """The derivatives of both tables."""
    before_moves, onward_moves = np.zeros(before.shape), np.zeros(onward.shape)
    for item in range(n):
        for count in range(1, min(item + 1, most) + 1):
            if before[item + 1, count] > -np.inf:
                share = np.exp(before[item, count - 1] + within[item] - before[item + 1, count])
                moved = before_moves[item, count - 1] + along[item] if share > 0.0 else 0.0
                before_moves[item + 1, count] = (1.0 - share) * before_moves[item, count] + share * moved
    for item in range(n - 1, -1, -1):
        for count in range(min(item, most) + 1):
            if onward[item, count] > -np.inf:
                share = np.exp(onward[item + 1, count + 1] + within[item] - onward[item, count])
                moved = onward_moves[item + 1, count + 1] + along[item] if share > 0.0 else 0.0
                onward_moves[item, count] = (1.0 - share) * onward_moves[item + 1, count] + share * moved
    return before_moves, onward_moves
