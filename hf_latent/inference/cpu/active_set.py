"""SparseMAP over trees, compiled: the active-set method of `hf_latent.inference.active_set`, one sentence at a time.

A vertex is kept as its heads, so that the product of two is the number of arcs that they share. The Gram matrix, plus 1
everywhere (which changes nothing where weights sum to 1, and makes it positive definite), is kept as a Cholesky factor that
grows by a row with each vertex and loses one by rotations.
"""

import numpy as np

from hf_latent.inference.cpu import arborescence, eisner
from hf_latent.inference.cpu.compiling import kernel


@kernel()
def project(scores, n, projective, single_root, tolerance, max_iterations):  # type: ignore[no-untyped-def]
    """Vertices `(count, n)` as heads, their weights `(count,)`, the duality gap, and whether it is small enough."""
    scale = 1.0
    shifted = np.zeros((n, n + 1))
    for word in range(n):
        highest = -np.inf
        for head in range(n + 1):
            if head != word + 1:
                highest = max(highest, scores[word, head])
        for head in range(n + 1):
            if head != word + 1:
                shifted[word, head] = scores[word, head] - highest
                scale = max(scale, -shifted[word, head])
    charts = np.empty((6, n + 1, n + 1)) if projective else np.empty((6, 0, 0))
    rest = shifted.copy()
    room = 16
    vertices = np.empty((room, n), np.int32)
    factor = np.empty((room, room))
    weights, target, right = np.zeros(room), np.empty(room), np.empty(room)
    _best_heads(rest, n, projective, single_root, charts, vertices[0])
    # Products with the scores are kept relative to the first: a constant changes nothing where weights sum to 1.
    origin = _score(shifted, vertices[0], n)
    factor[0, 0], weights[0], right[0], count = np.sqrt(n + 1.0), 1.0, 0.0, 1
    gap, converged = np.inf, False
    # The first guess may be next to the solution (a small step away from a vertex): the error is to be small beside that
    # distance, and no smaller than rounding allows. A constant added to a row is no distance.
    distance = 0.0
    for word in range(n):
        total, square = 0.0, 0.0
        for head in range(n + 1):
            if head != word + 1:
                difference = shifted[word, head] - (vertices[0, word] == head)
                total += difference
                square += difference**2
        distance += square - total**2 / n
    tolerance = tolerance * min(1.0, distance) + 1e-16 * n * scale
    for _ in range(max_iterations):
        _solve(factor, right, target, count, 1.0)
        if not abs(target[:count].sum() - 1.0) < 1e-6:
            converged = True  # as far as it goes: the scores are so large that their differences have no digits left
            break
        step, place = 1.0, -1
        for k in range(count):
            if target[k] <= 0.0 and weights[k] < step * (weights[k] - target[k]):
                step, place = weights[k] / (weights[k] - target[k]), k
        for k in range(count):
            weights[k] = max(weights[k] + step * (target[k] - weights[k]), 0.0)
        if place >= 0:
            count = _remove(place, vertices, factor, weights, right, count)
            continue
        rest[:] = shifted
        for k in range(count):
            for word in range(n):
                rest[word, vertices[k, word]] -= weights[k]
        if count == room:
            room *= 2
            vertices, factor = _grown(vertices, room, n), _grown(factor, room, room)
            weights, right, target = _grown_row(weights, room), _grown_row(right, room), np.empty(room)
        _best_heads(rest, n, projective, single_root, charts, vertices[count])
        gap = _score(rest, vertices[count], n)
        for k in range(count):
            gap -= weights[k] * _score(rest, vertices[k], n)
        if gap <= tolerance or not _append(vertices, factor, count, n):
            converged = True
            break
        weights[count], right[count] = 0.0, _score(shifted, vertices[count], n) - origin
        count += 1
    return vertices[:count].copy(), weights[:count].copy(), max(gap, 0.0), converged


@kernel()
def combine(vertices, weights, out):  # type: ignore[no-untyped-def]
    """Adds the weighted sum of `vertices (count, n)` to `out (n, n + 1)`."""
    for k in range(len(weights)):
        for word in range(vertices.shape[1]):
            out[word, vertices[k, word]] += weights[k]


@kernel()
def direction(vertices, weights, moved):  # type: ignore[no-untyped-def]
    """How the weights of a projection change when the scores move along `moved (n, n + 1)`: its Jacobian is A times this."""
    count, n = vertices.shape
    kept = np.empty((count, n), np.int32)
    factor = np.empty((count, count))
    right, change = np.empty(count), np.zeros(count)
    size = 0
    places = np.empty(count, np.int64)
    for k in range(count):
        if weights[k] > 0.0:
            kept[size] = vertices[k]
            if _append(kept, factor, size, n):
                right[size], places[size] = _score(moved, kept[size], n), k
                size += 1
    solution = np.empty(count)
    _solve(factor, right, solution, size, 0.0)
    for k in range(size):
        change[places[k]] = solution[k]
    return change


@kernel()
def _best_heads(scores, n, projective, single_root, charts, heads):  # type: ignore[no-untyped-def]
    if projective:
        eisner.best_heads(scores, n, single_root, charts, heads)
    else:
        arborescence.best_heads(scores, n, single_root, heads)


@kernel()
def _score(scores, heads, n):  # type: ignore[no-untyped-def]
    total = 0.0
    for word in range(n):
        total += scores[word, heads[word]]
    return total


@kernel()
def _append(vertices, factor, count, n):  # type: ignore[no-untyped-def]
    """The row of the factor for vertex `count`; False if that vertex depends on the others (so: is one of them)."""
    rest = n + 1.0
    for k in range(count):
        common = 1.0
        for word in range(n):
            common += vertices[count, word] == vertices[k, word]
        for other in range(k):
            common -= factor[count, other] * factor[k, other]
        factor[count, k] = common / factor[k, k]
        rest -= factor[count, k] ** 2
    if rest <= 1e-10 * (n + 1):
        return False
    factor[count, count] = np.sqrt(rest)
    return True


@kernel()
def _remove(place, vertices, factor, weights, right, count):  # type: ignore[no-untyped-def]
    for k in range(place, count - 1):
        vertices[k], weights[k], right[k] = vertices[k + 1], weights[k + 1], right[k + 1]
        factor[k, : k + 2] = factor[k + 1, : k + 2]
    # The rows that moved up have one entry beyond the diagonal: rotate it into the column before.
    for k in range(place, count - 1):
        a, b = factor[k, k], factor[k, k + 1]
        length = np.hypot(a, b)
        cosine, sine = a / length, b / length
        factor[k, k] = length
        for row in range(k + 1, count - 1):
            a, b = factor[row, k], factor[row, k + 1]
            factor[row, k], factor[row, k + 1] = cosine * a + sine * b, cosine * b - sine * a
    return count - 1


@kernel()
def _solve(factor, right, solution, count, total):  # type: ignore[no-untyped-def]
    """w with sum `total` that minimizes |A w|² / 2 - w·right."""
    ones = np.empty(count)
    for k in range(count):
        a, b = right[k], 1.0
        for other in range(k):
            a -= factor[k, other] * solution[other]
            b -= factor[k, other] * ones[other]
        solution[k], ones[k] = a / factor[k, k], b / factor[k, k]
    for k in range(count - 1, -1, -1):
        solution[k] /= factor[k, k]
        ones[k] /= factor[k, k]
        for other in range(k):
            solution[other] -= factor[k, other] * solution[k]
            ones[other] -= factor[k, other] * ones[k]
    missing, each = total, 0.0
    for k in range(count):
        missing -= solution[k]
        each += ones[k]
    for k in range(count):
        solution[k] += missing / each * ones[k]


@kernel()
def _grown(matrix, rows, columns):  # type: ignore[no-untyped-def]
    larger = np.empty((rows, columns), matrix.dtype)
    larger[: matrix.shape[0], : matrix.shape[1]] = matrix
    return larger


@kernel()
def _grown_row(row, size):  # type: ignore[no-untyped-def]
    larger = np.zeros(size)
    larger[: len(row)] = row
    return larger
