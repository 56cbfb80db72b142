"""SparseMAP over trees, compiled: the active-set method of `hf_latent.inference.active_set` for one sentence.

A vertex is kept as its heads, so that the product of two is the number of arcs that they share. The Gram matrix, plus 1
everywhere (which changes nothing where weights sum to 1, and makes it positive definite), is kept as a Cholesky factor that
grows by a row with each vertex and loses one by rotations.

The argmax is not called from here: the kernel that drives many sentences asks for the best trees of eight at once.
"""

import numpy as np

from hf_latent.inference.cpu.compiling import REORDER, part

ROOM = 16  # for vertices, at first

# What `extend` and `improve` say.
GOES_ON, CONVERGED = 0, 1


@part
def shift(scores, n, shifted):  # type: ignore[no-untyped-def]
    """Scores with a maximum of 0 in each row, and 0 for arcs of a word to itself; the largest difference, at least 1."""
    scale = 1.0
    for word in range(n):
        highest = -np.inf
        for head in range(n + 1):
            if head != word + 1:
                highest = max(highest, scores[word, head])
        for head in range(n + 1):
            shifted[word, head] = 0.0 if head == word + 1 else scores[word, head] - highest
            scale = max(scale, -shifted[word, head])
    return scale


@part
def begin(shifted, n, scale, tol, vertices, factor, weights):  # type: ignore[no-untyped-def]
    """Starts with `vertices[0]` alone; the gap to stop at.

    The first guess may be next to the solution (a small step away from a vertex): the error is to be small beside that
    distance, and no smaller than rounding allows. A constant added to a row is no distance.
    """
    factor[0, 0], weights[0] = np.sqrt(n + 1.0), 1.0
    distance = 0.0
    for word in range(n):
        total, square = 0.0, 0.0
        for head in range(n + 1):
            if head != word + 1:
                difference = shifted[word, head] - (vertices[0, word] == head)
                total += difference
                square += difference**2
        distance += square - total**2 / n
    return tol * min(1.0, distance) + 1e-16 * n * scale


@part
def extend(rest, n, vertices, factor, weights, count, stop_at):  # type: ignore[no-untyped-def]
    """Takes in `vertices[count]`, a best tree for the `rest`, unless that shows that the end is reached.

    Returns the duality gap before, and whether it goes on.
    """
    gap = score(rest, vertices[count], n)
    for k in range(count):
        gap -= weights[k] * score(rest, vertices[k], n)
    if gap <= stop_at or not _append(vertices, factor, count, n):
        return max(gap, 0.0), CONVERGED
    weights[count] = 0.0
    return gap, GOES_ON


@part
def improve(vertices, factor, weights, right, target, count):  # type: ignore[no-untyped-def]
    """One step towards the best weights of these vertices, up to where the first would turn negative, which is dropped.

    Returns how many are left, whether one was dropped, and whether this can go on at all.
    """
    _solve(factor, right, target, count, 1.0)
    if not abs(target[:count].sum() - 1.0) < 1e-6:
        return count, False, CONVERGED  # the scores are so large that their differences have no digits left
    step, place = 1.0, -1
    for k in range(count):
        if target[k] <= 0.0 and weights[k] < step * (weights[k] - target[k]):
            step, place = weights[k] / (weights[k] - target[k]), k
    for k in range(count):
        weights[k] = max(weights[k] + step * (target[k] - weights[k]), 0.0)
    if place >= 0:
        return _remove(place, vertices, factor, weights, right, count), True, GOES_ON
    return count, False, GOES_ON


@part
def subtract(shifted, n, vertices, weights, count, rest):  # type: ignore[no-untyped-def]
    """`rest`: the scores less the point that the weighted vertices make up."""
    rest[:n, : n + 1] = shifted[:n, : n + 1]
    for k in range(count):
        for word in range(n):
            rest[word, vertices[k, word]] -= weights[k]


@part
def combine(vertices, weights, out):  # type: ignore[no-untyped-def]
    """Adds the weighted sum of `vertices (count, n)` to `out (n, n + 1)`."""
    for k in range(len(weights)):
        for word in range(vertices.shape[1]):
            out[word, vertices[k, word]] += weights[k]


@part
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
                right[size], places[size] = score(moved, kept[size], n), k
                size += 1
    solution = np.empty(count)
    _solve(factor, right, solution, size, 0.0)
    for k in range(size):
        change[places[k]] = solution[k]
    return change


@part
def score(scores, heads, n):  # type: ignore[no-untyped-def]
    """The score of a tree."""
    total = 0.0
    for word in range(n):
        total += scores[word, heads[word]]
    return total


@part(fastmath=REORDER)
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


@part
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


@part(fastmath=REORDER)
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


@part
def grown(matrix, rows, columns):  # type: ignore[no-untyped-def]
    """A larger matrix with `matrix` in its corner."""
    larger = np.empty((rows, columns), matrix.dtype)
    larger[: matrix.shape[0], : matrix.shape[1]] = matrix
    return larger


@part
def grown_row(row, size):  # type: ignore[no-untyped-def]
    """A longer row that begins with `row` and goes on with 0."""
    larger = np.zeros(size)
    larger[: len(row)] = row
    return larger
