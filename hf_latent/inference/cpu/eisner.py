"""Projective trees: Eisner's algorithm, compiled. See `reference.eisner` for the recursion."""

import numpy as np

from hf_latent.inference.cpu.compiling import kernel

# Only what the innermost loops need to become vector instructions; NaN is ruled out before the call.
VECTORIZE = {"nnan", "nsz", "reassoc", "contract"}


@kernel(fastmath=VECTORIZE, inline="always")
def _largest_sum(a, b, start, stop):  # type: ignore[no-untyped-def]
    best = -np.inf
    for k in range(start, stop):
        best = max(best, a[k] + b[k])
    return best


@kernel(inline="always")
def _first_largest_sum(a, b, start, stop):  # type: ignore[no-untyped-def]
    best, place = -np.inf, start
    for k in range(start, stop):
        if a[k] + b[k] > best:
            best, place = a[k] + b[k], k
    return place


@kernel(fastmath=VECTORIZE)
def best_heads(scores, n, single_root, charts, heads):  # type: ignore[no-untyped-def]
    """Writes the head of each word of a highest-scoring tree into `heads (n,)`; `charts (6, N, N)` is scratch, N > n.

    Each kind of span is kept so that all its splits lie side by side: by the end that they share.
    """
    right, right_by_end = charts[0], charts[1]  # [i, k]: C(i -> k); [j, k]: C(k -> j)
    left, left_by_end = charts[2], charts[3]  # [j, k]: C(j -> k); [i, k]: C(k -> i)
    right_arc, left_arc = charts[4], charts[5]  # [i, k]: I(i -> k); [j, k]: I(j -> k)
    for i in range(n + 1):
        right[i, i] = right_by_end[i, i] = left[i, i] = left_by_end[i, i] = 0.0
    for width in range(1, n + 1):
        for i in range(n + 1 - width):
            j = i + width
            # left[j, 1:] against right[i]: the split is between k and k + 1.
            splits = 1 if single_root and i == 0 else width
            best = _largest_sum(right[i], left[j, 1:], i, i + splits)
            right_arc[i, j] = best + scores[j - 1, i]
            best_right = _largest_sum(right_arc[i], right_by_end[j], i + 1, j + 1)
            right[i, j] = right_by_end[j, i] = best_right
            if i > 0:  # ROOT has no head
                left_arc[j, i] = best + scores[i - 1, j]
                best_left = _largest_sum(left_by_end[i], left_arc[j], i, j)
                left[j, i] = left_by_end[i, j] = best_left
    _backtrack(n, single_root, charts, heads)


@kernel()
def _backtrack(n, single_root, charts, heads):  # type: ignore[no-untyped-def]
    """From the span over the whole sentence down to arcs; a span (head, end, has it been given its last arc)."""
    right, right_by_end, left, left_by_end, right_arc, left_arc = charts
    stack = np.empty((2 * n + 4, 3), np.int64)
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, n, 0
    size = 1
    while size > 0:
        size -= 1
        head, end, incomplete = stack[size]
        if head == end:
            continue
        i, j = min(head, end), max(head, end)
        if incomplete:
            heads[end - 1] = head
            splits = 1 if single_root and i == 0 else j - i
            k = _first_largest_sum(right[i], left[j, 1:], i, i + splits)
            stack[size, 0], stack[size, 1], stack[size, 2] = i, k, 0
            stack[size + 1, 0], stack[size + 1, 1], stack[size + 1, 2] = j, k + 1, 0
        else:
            if head < end:
                k = _first_largest_sum(right_arc[i], right_by_end[j], i + 1, j + 1)
            else:
                k = _first_largest_sum(left_by_end[i], left_arc[j], i, j)
            stack[size, 0], stack[size, 1], stack[size, 2] = head, k, 1
            stack[size + 1, 0], stack[size + 1, 1], stack[size + 1, 2] = k, end, 0
        size += 2
