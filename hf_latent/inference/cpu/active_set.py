"""SparseMAP for one row, compiled: the active-set method of `hf_latent.inference.active_set` for a structure of groups.

Scores are `(groups, parts)`, -inf for what is forbidden. A vertex is kept as its choices: the part of each group, or -1 for
none, so that the product of two is the number of parts that they share. The Gram matrix, plus 1 everywhere (which changes
nothing where weights sum to 1, and makes it positive definite), is kept as an upper Cholesky factor, UᵀU, that grows by a
column with each vertex and loses one by rotations. `reduced (2, room)` holds U⁻ᵀ times the products of the vertices with the
scores, and U⁻ᵀ times what each adds to the sum of weights, 1: they grow and lose entries with U, so that weights cost one
substitution. All loops run along the rows of U, which lie in one piece.

Where the vertices come from is not known here: see `projections`.
"""

import numpy as np

from hf_latent.inference.cpu.compiling import REORDER, part

ROOM = 16  # for vertices, at first

# What `extend` and `improve` say.
GOES_ON, CONVERGED = 0, 1


@part
def begin(scores, one_each, tol, vertices, factor, reduced, weights):  # type: ignore[no-untyped-def]
    """Starts with `vertices[0]` alone; the gap to stop at.

    The first guess may be next to the solution (a small step away from a vertex): the error is to be small beside that
    distance. Where a structure has one part in each group, a constant added to a group is no distance.
    """
    square = _size(vertices[0]) + 1.0
    factor[0, 0], weights[0] = np.sqrt(square), 1.0
    reduced[0, 0], reduced[1, 0] = 0.0, 1.0 / factor[0, 0]  # products with the scores are relative to that of the first
    distance = 0.0
    for group in range(scores.shape[0]):
        total, squares, count = 0.0, 0.0, 0
        for one in range(scores.shape[1]):
            if scores[group, one] > -np.inf:
                difference = scores[group, one] - (vertices[0, group] == one)
                total += difference
                squares += difference**2
                count += 1
        distance += squares - (total**2 / count if one_each and count else 0.0)
    return tol * min(1.0, distance)


@part
def largest_score(scores, choices):  # type: ignore[no-untyped-def]
    """The largest score, by its size, of a vertex's parts; at least 1."""
    largest = 1.0
    for group in range(len(choices)):
        if choices[group] >= 0:
            largest = max(largest, abs(scores[group, choices[group]]))
    return largest


@part
def extend(rest, product, vertices, factor, reduced, weights, count, stop_at):  # type: ignore[no-untyped-def]
    """Takes in `vertices[count]`, a best one for the `rest`, unless that shows that the end is reached.

    `product`: its score, less that of the first. Returns the duality gap before, and whether it goes on.
    """
    gap = score(rest, vertices[count])
    for k in range(count):
        gap -= weights[k] * score(rest, vertices[k])
    products = np.empty(count)
    _shared_parts(vertices, count, products)
    square = _size(vertices[count]) + 1.0
    if gap <= stop_at or not append(products, square, product, 1.0, factor, reduced, count):
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
def subtract(scores, vertices, weights, count, rest):  # type: ignore[no-untyped-def]
    """`rest`: the scores less the point that the weighted vertices make up."""
    rest[:] = scores
    for k in range(count):
        for group in range(vertices.shape[1]):
            if vertices[k, group] >= 0:
                rest[group, vertices[k, group]] -= weights[k]


@part
def combine(vertices, weights, out):  # type: ignore[no-untyped-def]
    """Adds the weighted sum of `vertices (count, groups)` to `out (groups, parts)`."""
    for k in range(len(weights)):
        for group in range(vertices.shape[1]):
            if vertices[k, group] >= 0:
                out[group, vertices[k, group]] += weights[k]


@part
def direction(vertices, weights, moved):  # type: ignore[no-untyped-def]
    """How the weights of a projection change when the scores move along `moved`: its Jacobian is A times this."""
    count, groups = vertices.shape
    kept = np.empty((count, groups), np.int32)
    factor, reduced = np.empty((count, count)), np.empty((2, count))
    change, solution = np.zeros(count), np.empty(count)
    size = 0
    places, products = np.empty(count, np.int64), np.empty(count)
    for k in range(count):
        if weights[k] > 0.0:
            kept[size] = vertices[k]
            _shared_parts(kept, size, products)
            if append(products, _size(kept[size]) + 1.0, score(moved, kept[size]), 1.0, factor, reduced, size):
                places[size] = k
                size += 1
    _solve(factor, reduced, solution, size, 0.0)
    for k in range(size):
        change[places[k]] = solution[k]
    return change


@part
def score(scores, choices):  # type: ignore[no-untyped-def]
    """The score of a vertex."""
    total = 0.0
    for group in range(len(choices)):
        if choices[group] >= 0:
            total += scores[group, choices[group]]
    return total


@part
def _size(choices):  # type: ignore[no-untyped-def]
    """How many parts a vertex has."""
    total = 0
    for group in range(len(choices)):
        total += choices[group] >= 0
    return total


@part
def _shared_parts(vertices, count, products):  # type: ignore[no-untyped-def]
    """The products of vertex `count` with those before it, plus 1."""
    choices = vertices[count]
    for k in range(count):
        others, common = vertices[k], 1
        for group in range(len(choices)):
            common += choices[group] == others[group] and choices[group] >= 0
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
