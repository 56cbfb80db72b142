"""SparseMAP over trees, compiled: the active-set method of `hf_latent.inference.active_set` for one sentence.

A vertex is kept as its heads, so that the product of two is the number of arcs that they share. The Gram matrix, plus 1
everywhere (which changes nothing where weights sum to 1, and makes it positive definite), is kept as an upper Cholesky factor,
UᵀU, that grows by a column with each vertex and loses one by rotations. `reduced (2, room)` holds U⁻ᵀ times the products of
the vertices with the scores, and U⁻ᵀ times what each adds to the sum of weights, 1: they grow and lose entries with U, so that
weights cost one substitution. All loops run along the rows of U, which lie in one piece.

The argmax is not called from here: the kernel that drives many sentences asks for the best trees of eight at once.
"""

import numpy as np

from hf_latent.inference.cpu.compiling import REORDER, part

ROOM = 16  # for vertices, at first

# What `extend` and `improve` say.
GOES_ON, CONVERGED = 0, 1


@part
def shift(scores, n, lowest, shifted):  # type: ignore[no-untyped-def]
    """Scores with a maximum of 0 in each row, -inf below the `lowest`, and 0 for arcs of a word to itself.

    False where a word has no head: all are forbidden.
    """
    for word in range(n):
        highest = -np.inf
        for head in range(n + 1):
            if head != word + 1:
                highest = max(highest, scores[word, head])
        if not highest >= lowest or highest == -np.inf:
            return False
        for head in range(n + 1):
            allowed = scores[word, head] >= lowest
            shifted[word, head] = 0.0 if head == word + 1 else scores[word, head] - highest if allowed else -np.inf
    return True


@part
def begin(shifted, n, tol, vertices, factor, reduced, weights):  # type: ignore[no-untyped-def]
    """Starts with `vertices[0]` alone; the gap to stop at.

    The first guess may be next to the solution (a small step away from a vertex): the error is to be small beside that
    distance. A constant added to a row is no distance.
    """
    factor[0, 0], weights[0] = np.sqrt(n + 1.0), 1.0
    reduced[0, 0], reduced[1, 0] = 0.0, 1.0 / factor[0, 0]  # products with the scores are relative to that of the first
    distance = 0.0
    for word in range(n):
        total, square, count = 0.0, 0.0, 0
        for head in range(n + 1):
            if head != word + 1 and shifted[word, head] > -np.inf:
                difference = shifted[word, head] - (vertices[0, word] == head)
                total += difference
                square += difference**2
                count += 1
        distance += square - total**2 / count
    return tol * min(1.0, distance)


@part
def largest_difference(shifted, heads, n):  # type: ignore[no-untyped-def]
    """How far a tree's arcs lie below the best of their words, at the most; at least 1."""
    largest = 1.0
    for word in range(n):
        largest = max(largest, -shifted[word, heads[word]])
    return largest


@part
def extend(rest, product, n, vertices, factor, reduced, weights, count, stop_at):  # type: ignore[no-untyped-def]
    """Takes in `vertices[count]`, a best tree for the `rest`, unless that shows that the end is reached.

    `product`: its score, less that of the first. Returns the duality gap before, and whether it goes on.
    """
    gap = score(rest, vertices[count], n)
    for k in range(count):
        gap -= weights[k] * score(rest, vertices[k], n)
    products = np.empty(count)
    _shared_arcs(vertices, count, n, products)
    if gap <= stop_at or not append(products, n + 1.0, product, 1.0, factor, reduced, count):
        return max(gap, 0.0), CONVERGED
    weights[count] = 0.0
    return gap, GOES_ON


@part
def improve(vertices, factor, reduced, weights, target, count):  # type: ignore[no-untyped-def]
    """One step towards the best weights of these vertices, up to where the first would turn negative, which is dropped.

    Returns how many are left, whether one was dropped, and whether this can go on at all.
    """
    _solve(factor, reduced, target, count, 1.0)
    if not abs(target[:count].sum() - 1.0) < 1e-6:
        return count, False, CONVERGED  # the scores are so large that their differences have no digits left
    place = step(target, weights, count)
    if place >= 0:
        return remove(place, vertices, factor, reduced, weights, count), True, GOES_ON
    return count, False, GOES_ON


@part
def step(target, weights, count):  # type: ignore[no-untyped-def]
    """Moves `weights` towards the `target`, up to where the first would turn negative; the place of that one, or -1."""
    share, place = 1.0, -1
    for k in range(count):
        if target[k] <= 0.0 and weights[k] < share * (weights[k] - target[k]):
            share, place = weights[k] / (weights[k] - target[k]), k
    for k in range(count):
        weights[k] = max(weights[k] + share * (target[k] - weights[k]), 0.0)
    return place


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
    factor, reduced = np.empty((count, count)), np.empty((2, count))
    change, solution = np.zeros(count), np.empty(count)
    size = 0
    places, products = np.empty(count, np.int64), np.empty(count)
    for k in range(count):
        if weights[k] > 0.0:
            kept[size] = vertices[k]
            _shared_arcs(kept, size, n, products)
            if append(products, n + 1.0, score(moved, kept[size], n), 1.0, factor, reduced, size):
                places[size] = k
                size += 1
    _solve(factor, reduced, solution, size, 0.0)
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


@part
def _shared_arcs(vertices, count, n, products):  # type: ignore[no-untyped-def]
    """The products of vertex `count` with those before it, plus 1."""
    heads = vertices[count, :n]
    for k in range(count):
        others, common = vertices[k, :n], 1
        for word in range(n):
            common += heads[word] == others[word]
        products[k] = common


@part(fastmath=REORDER)
def append(products, square, product, share, factor, reduced, count):  # type: ignore[no-untyped-def]
    """The column of the factor for vertex `count`; False if that vertex depends on the others (so: is one of them).

    `products (count,)`, which is written over, are those of the vertex with the others, `square` that with itself, `product`
    that with the scores, and `share` what it adds to the sum of weights.
    """
    rest = square
    for k in range(count):
        products[k] /= factor[k, k]
        entry, below, along = products[k], products[k + 1 : count], factor[k, k + 1 : count]
        for other in range(len(below)):
            below[other] -= entry * along[other]
        rest -= entry**2
        product -= entry * reduced[0, k]
        share -= entry * reduced[1, k]
    if rest <= 1e-10 * square:
        return False
    for k in range(count):
        factor[k, count] = products[k]
    last = np.sqrt(rest)
    factor[count, count], reduced[0, count], reduced[1, count] = last, product / last, share / last
    return True


@part(fastmath=REORDER)
def remove(place, vertices, factor, reduced, weights, count):  # type: ignore[no-untyped-def]
    for k in range(place, count - 1):
        vertices[k], weights[k] = vertices[k + 1], weights[k + 1]
    for k in range(count):
        row = factor[k, :count]
        for column in range(max(place, k - 1), count - 1):
            row[column] = row[column + 1]
    # The columns that moved have one entry below the diagonal: rotate it into the row above.
    for k in range(place, count - 1):
        upper, lower = factor[k, k : count - 1], factor[k + 1, k : count - 1]
        length = np.hypot(upper[0], lower[0])
        cosine, sine = upper[0] / length, lower[0] / length
        for column in range(len(upper)):
            a, b = upper[column], lower[column]
            upper[column], lower[column] = cosine * a + sine * b, cosine * b - sine * a
        for right in range(2):
            a, b = reduced[right, k], reduced[right, k + 1]
            reduced[right, k], reduced[right, k + 1] = cosine * a + sine * b, cosine * b - sine * a
    return count - 1


@part
def _solve(factor, reduced, solution, count, total):  # type: ignore[no-untyped-def]
    """w with sum `total` that minimizes |A w|² / 2 - w·right, where `reduced` holds U⁻ᵀ right and U⁻ᵀ 1."""
    ones = np.empty(count)
    substitute(factor, reduced[0], solution, count)
    substitute(factor, reduced[1], ones, count)
    share = (total - solution[:count].sum()) / ones.sum()
    for k in range(count):
        solution[k] += share * ones[k]


@part(fastmath=REORDER)
def substitute(factor, right, solution, count):  # type: ignore[no-untyped-def]
    """U⁻¹ right."""
    for k in range(count - 1, -1, -1):
        total, along, solved = 0.0, factor[k, k + 1 : count], solution[k + 1 : count]
        for other in range(len(along)):
            total += along[other] * solved[other]
        solution[k] = (right[k] - total) / factor[k, k]


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
