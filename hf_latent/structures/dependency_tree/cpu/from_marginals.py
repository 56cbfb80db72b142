"""Projections of points that lie near marginals, compiled: the inner step of SPIGOT-CE, Π_M(μ⁰ - ηγ) with μ⁰ = Marg(s).

Such a point lies inside the polytope, or just outside: as a combination of trees it would take hundreds of them. It takes few
other points of the polytope, if they are marginals as well: those of scores s + t·r, where r is what is left to project and t
goes from small to large (at first, the marginals move along Cov·r), and now and then a best tree for r, for what lies on the
boundary. The best combination of these and μ⁰ is found as for trees, on their directions from μ⁰:

    minimize |d - Σ cₖ uₖ|² over c >= 0 with Σ cₖ / lₖ <= 1,  uₖ = (aₖ - μ⁰) / lₖ,  lₖ = |aₖ - μ⁰|,  d = v - μ⁰

where μ⁰ has the weight that the others leave. The result is in the polytope at any time, and nearer with every point.
"""

import numpy as np

from hf_latent.inference.cpu import active_set
from hf_latent.inference.cpu.batch import DONE, OUT_OF_RANGE
from hf_latent.inference.cpu.compiling import REORDER, Kernel, part
from hf_latent.inference.cpu.simd import WIDTH, charts_of, larger, plus
from hf_latent.structures.dependency_tree.cpu import arborescence, eisner
from hf_latent.structures.dependency_tree.cpu.gather import gather_scores, gather_weights, scatter
from hf_latent.structures.dependency_tree.cpu.kernels import (
    attach_padding,
    check_pivots,
    check_sentence,
    check_sums,
    non_projective_marginals,
    projective_marginals,
    six_charts,
)

# For up to so many words, trees alone are not too many, and end exactly.
SHORT = 10

# How far the scores are tilted, in turn: the largest change of one. 0 stands for a tree, the limit of large ones.
TILTS = (3.0, 10.0, 30.0, 0.0)


@Kernel
def project_from_marginals(  # type: ignore[no-untyped-def]
    values, targets, sizes, order, first, last, projective, single_root, scratch, tol, most_points, point, status, cancelled
):
    """Writes the projections of `targets` into `point`, from the marginals of `values`; both `(batch, n, n + 1)`, `point` 0.

    Each ends where its distance to the true projection is at most `tol` times the target's distance to the marginals, or with
    `most_points` points. Sentences of at most `SHORT` words are left to others: their `status` is OUT_OF_RANGE.
    """
    size = sizes[order[first * WIDTH]]
    three = charts_of(scratch, 0, 3, size + 1)
    weights, paths, arcs = three[0], three[1], three[2]
    charts = six_charts(scratch, 3, size if projective else 0)
    flows = six_charts(scratch, 9, size if projective else 0)
    offsets, ends = np.empty(WIDTH), np.empty((size + 1, WIDTH))
    heads, state = np.empty(size, np.int32), np.zeros(1, np.uint64)  # no random numbers are drawn
    for group in range(first, last):
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size, count = sizes[rows[0]], len(rows)
        lanes, own_sizes, own_status = np.arange(count), sizes[rows], np.zeros(count, np.int8)
        six = np.zeros((6, count, size, size + 1))
        scores, tilted, start, aim, rest, found = six[0], six[1], six[2], six[3], six[4], six[5]
        directions = np.empty((count, most_points, size * (size + 1)))
        factors, reduced = np.empty((count, most_points, most_points)), np.zeros((count, 2, most_points))
        shares, lengths = np.zeros((count, most_points)), np.zeros((count, most_points))
        counts, bounds, steps = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
        ended = np.zeros(count, np.bool_)
        for lane in range(count):
            n = sizes[rows[lane]]
            lowest = check_sentence(values[rows[lane]], n, own_status[lane : lane + 1])
            for word in range(n):
                for head in range(n + 1):
                    score = values[rows[lane], word, head]
                    allowed = score >= lowest and targets[rows[lane], word, head] > -np.inf
                    scores[lane, word, head] = score if allowed else -np.inf
            ended[lane] = 0 < n <= SHORT
        for turn in range(most_points + 1):
            if cancelled[0]:
                return
            tilt = 0.0 if turn == 0 else TILTS[(turn - 1) % len(TILTS)]
            tree = turn > 0 and tilt == 0.0
            for lane in range(count):
                _tilt(scores[lane], rest[lane], tilt, tree, tilted[lane])
            if tree and projective:
                gather_scores(tilted, lanes, own_sizes, weights, own_status)
                eisner.inside(weights, size, single_root, charts, larger, plus, -np.inf, 0.0)
            elif not tree:
                gather_weights(tilted, lanes, own_sizes, weights, offsets, own_status)
                if projective:
                    projective_marginals(weights, lanes, own_sizes, single_root, charts, flows, arcs, ends)
                    check_sums(ends, lanes, own_sizes, own_status)
                else:
                    attach_padding(weights, lanes, own_sizes)
                    non_projective_marginals(weights, size, single_root, paths, arcs, ends)
                    for lane in range(count):
                        check_pivots(ends, own_sizes[lane], lane, lane, own_status)
                found[:] = 0.0
                scatter(arcs, lanes, own_sizes, 0.0, 1.0, found, own_status)
            busy = False
            for lane in range(count):
                n = own_sizes[lane]
                if own_status[lane] != DONE or ended[lane]:
                    continue
                if turn == 0:
                    start[lane] = found[lane]
                    bounds[lane] = _aim(targets[rows[lane]], scores[lane], n, start[lane], aim[lane])
                    rest[lane] = aim[lane]
                    steps[lane] = _product(_flat(aim[lane]), _flat(aim[lane]))
                    ended[lane] = steps[lane] <= 1e-28 * n
                else:
                    if tree:
                        if projective:
                            eisner.trace(charts, lane, n, single_root, heads[:n], False, state)
                        else:
                            arborescence.best_heads(tilted[lane], n, -np.inf, single_root, heads[:n])
                        found[lane] = 0.0
                        for word in range(n):
                            found[lane, word, heads[word]] = 1.0
                    counts[lane], ended[lane] = _take(
                        _flat(found[lane]),
                        _flat(start[lane]),
                        _flat(aim[lane]),
                        _flat(rest[lane]),
                        *(directions[lane], lengths[lane], factors[lane], reduced[lane], shares[lane], counts[lane]),
                        *(tree, tol**2 * steps[lane], bounds[lane]),
                    )
                busy |= not ended[lane]
            if not busy:
                break
        for lane in range(count):
            index, n, used = rows[lane], own_sizes[lane], counts[lane]
            status[index] = OUT_OF_RANGE if 0 < n <= SHORT and own_status[lane] == DONE else own_status[lane]
            for k in range(used):
                _flat(start[lane])[:] += shares[lane, k] * directions[lane, k]
            for word in range(n):
                for head in range(n + 1):
                    point[index, word, head] = min(max(start[lane, word, head], 0.0), 1.0)  # rounding only


@part
def _flat(matrix):  # type: ignore[no-untyped-def]
    return matrix.reshape(matrix.size)


@part
def _tilt(scores, rest, tilt, tree, out):  # type: ignore[no-untyped-def]
    """`scores` + t · `rest`, with t such that the largest change is `tilt`; for a tree, the `rest` itself."""
    flat, before, change, largest = _flat(out), _flat(scores), _flat(rest), 0.0
    for place in range(len(flat)):
        largest = max(largest, abs(change[place]))
    factor = tilt / largest if largest > 0.0 else 0.0
    for place in range(len(flat)):
        flat[place] = change[place] if tree and before[place] > -np.inf else before[place] + factor * change[place]


@part
def _aim(target, scores, n, start, aim):  # type: ignore[no-untyped-def]
    """Writes what leads from `start` to the target into `aim`; returns a bound on how near the target M is, squared.

    A row of a point of M sums to 1, so the target's rows are moved to do so (which moves the projection nowhere). The bound is
    the squared distance to the product of the rows' simplices, which M is part of. What the `scores` forbid is no part of it.
    """
    bound, ordered = 0.0, np.empty(n)
    for word in range(n):
        total, count = 0.0, 0
        for head in range(n + 1):
            if head != word + 1 and scores[word, head] > -np.inf:
                ordered[count] = target[word, head]
                total += ordered[count]
                count += 1
        shift = (1.0 - total) / count
        for head in range(n + 1):
            if head != word + 1 and scores[word, head] > -np.inf:
                aim[word, head] = target[word, head] + shift - start[word, head]
        ordered[:count] += shift
        ordered[:count].sort()
        above, threshold = 0.0, 0.0
        for k in range(1, count + 1):
            above += ordered[count - k]
            if ordered[count - k] * k > above - 1.0:
                threshold = (above - 1.0) / k
        for k in range(count):
            bound += min(ordered[k], threshold) ** 2
    return bound


@part(fastmath=REORDER)
def _product(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for place in range(len(a)):
        total += a[place] * b[place]
    return total


@part
def _take(  # type: ignore[no-untyped-def]
    found, start, aim, rest, directions, lengths, factor, reduced, shares, count, tree, enough, bound
):
    """Takes in the point that was `found` and combines anew; `rest` is then what is left. How many there are; if it has ended.

    Half the squared distance to the solution is at most what is left to gain. The product of the `rest` with a best tree less
    the present point is a bound on that, and so is half of |rest|² less the squared distance to a set that M is part of.
    """
    along = directions[count]
    for place in range(len(found)):
        along[place] = found[place] - start[place]
    if tree:
        gap = _product(rest, along)
        for k in range(count):
            gap -= shares[k] * _product(rest, directions[k])
        if 2.0 * gap <= enough:
            return count, True
    length = np.sqrt(_product(along, along))
    if length < 1e-14:
        return count, False
    lengths[count], shares[count] = length, 0.0
    for place in range(len(along)):
        along[place] /= length
    products = np.empty(count)
    for k in range(count):
        products[k] = _product(directions[k], along)
    if not active_set.append(products, 1.0, _product(aim, along), 1.0 / length, factor, reduced, count):
        return count, False  # the others make it up
    count += 1
    target, correction, place = np.empty(count), np.empty(count), 0
    while place >= 0:
        active_set.substitute(factor, reduced[0], target, count)
        total = _total(target, lengths, count)
        if total > 1.0:  # no weight is left for the start
            active_set.substitute(factor, reduced[1], correction, count)
            excess = (total - 1.0) / _total(correction, lengths, count)
            for k in range(count):
                target[k] -= excess * correction[k]
        place = active_set.step(target, shares, count)
        if place >= 0:
            lengths[place : count - 1] = lengths[place + 1 : count]
            count = active_set.remove(place, directions, factor, reduced, shares, count)
    rest[:] = aim
    for k in range(count):
        share, along = shares[k], directions[k]
        for other in range(len(rest)):
            rest[other] -= share * along[other]
    return count, _product(rest, rest) - bound <= enough


@part
def _total(shares, lengths, count):  # type: ignore[no-untyped-def]
    """The sum of the points' weights."""
    total = 0.0
    for k in range(count):
        total += shares[k] / lengths[k]
    return total
