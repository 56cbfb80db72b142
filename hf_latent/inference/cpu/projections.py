"""SparseMAP for rows of a batch, compiled, for any structure that has a compiled argmax.

The structure's kernel holds the loop: it admits rows into `Slots`, finds a best vertex for what is left of each (of many at
once, if it can), and hands it over to `take`, until no row is left. See `structures.dependency_tree.cpu.sparsemap`.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hf_latent.inference.algorithms import Projection
from hf_latent.inference.checks import raise_invalid_start
from hf_latent.inference.cpu import active_set
from hf_latent.inference.cpu.batch import BAD_START, NOT_CONVERGED, array
from hf_latent.inference.cpu.compiling import Kernel, part
from hf_latent.inference.cpu.threads import run_groups

# Of each vertex that a projection is made of: its choices `(count, groups)`, its weight and its row `(count,)`.
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


class Slots(NamedTuple):
    """Rows that are worked on at the same time; `owner` is the row of a slot, or -1 where it is free.

    The lists have an entry for each slot: `scores` and `rest`, what is left of them, `(groups, parts)`, and the active set.
    `found` are three lists of one array each, with room for more than the `number` of entries that they have.
    """

    owner: np.ndarray
    counts: np.ndarray
    iterations: np.ndarray
    stop_at: np.ndarray
    offsets: np.ndarray
    largest: np.ndarray
    scores: list[np.ndarray]
    rest: list[np.ndarray]
    vertices: list[np.ndarray]
    weights: list[np.ndarray]
    factors: list[np.ndarray]
    reduced: list[np.ndarray]
    choices_found: list[np.ndarray]
    weights_found: list[np.ndarray]
    rows_found: list[np.ndarray]
    number: np.ndarray


@part
def free_slots(count, groups):  # type: ignore[no-untyped-def]
    """`count` free slots, for rows of up to so many groups."""
    room = active_set.ROOM
    return Slots(
        np.full(count, -1),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.zeros(count),
        np.zeros(count),
        np.zeros(count),
        [np.empty((0, 0)) for _ in range(count)],
        [np.empty((0, 0)) for _ in range(count)],
        [np.empty((0, 0), np.int32) for _ in range(count)],
        [np.zeros(room) for _ in range(count)],
        [np.empty((room, room)) for _ in range(count)],
        [np.zeros((2, room)) for _ in range(count)],
        [np.empty((64, groups), np.int32)],
        [np.empty(64)],
        [np.empty(64, np.int64)],
        np.zeros(1, np.int64),
    )


@part
def admit(slots, slot, row, scores):  # type: ignore[no-untyped-def]
    """Begins with `row`, whose `scores (groups, parts)` are -inf where something is forbidden."""
    slots.owner[slot], slots.counts[slot], slots.iterations[slot] = row, 0, 0
    slots.scores[slot], slots.rest[slot] = scores, scores.copy()
    slots.vertices[slot] = np.empty((len(slots.weights[slot]), scores.shape[0]), np.int32)


@part
def take(slots, slot, choices, one_each, tol, max_iter, status, gaps, point):  # type: ignore[no-untyped-def]
    """Goes on with a vertex, the `choices (groups,)` that are best for the rest; where that ends, the slot is free.

    Then the row's `point (groups, parts)`, 0 before, is its projection. `one_each`: every structure has one part in each group.
    """
    row, count = slots.owner[slot], slots.counts[slot]
    if count == len(slots.weights[slot]):
        _grow(slots, slot)
    scores, vertices, weights = slots.scores[slot], slots.vertices[slot], slots.weights[slot]
    factor, reduced = slots.factors[slot], slots.reduced[slot]
    vertices[count] = choices
    if count == 0:
        slots.stop_at[slot] = active_set.begin(scores, one_each, tol, vertices, factor, reduced, weights)
        said, gaps[row] = active_set.GOES_ON, np.inf
        # Products with the scores are kept relative to the first: a constant changes nothing where weights sum to 1.
        slots.offsets[slot] = active_set.score(scores, choices)
        slots.largest[slot] = active_set.largest_score(scores, choices)
    else:
        product = active_set.score(scores, choices) - slots.offsets[slot]
        slots.largest[slot] = max(slots.largest[slot], active_set.largest_score(scores, choices))
        enough = slots.stop_at[slot] + 1e-16 * len(choices) * slots.largest[slot]  # no smaller than rounding allows
        gaps[row], said = active_set.extend(slots.rest[slot], product, vertices, factor, reduced, weights, count, enough)
    if said == active_set.GOES_ON and slots.iterations[slot] >= max_iter:
        status[row], said = NOT_CONVERGED, active_set.CONVERGED  # as far as it may go
    if said == active_set.GOES_ON:
        count += 1
        target, dropped = np.empty(count), True
        while dropped and said == active_set.GOES_ON and slots.iterations[slot] < max_iter:
            slots.iterations[slot] += 1
            count, dropped, said = active_set.improve(vertices, factor, reduced, weights, target, count)
        active_set.subtract(scores, vertices, weights, count, slots.rest[slot])
        slots.counts[slot] = count
    if said == active_set.CONVERGED:
        total = np.zeros(scores.shape)
        active_set.combine(vertices[:count], weights[:count], total)
        for group in range(total.shape[0]):
            for one in range(total.shape[1]):
                point[group, one] = min(total[group, one], 1.0)  # rounding only
        _record(slots, slot, count)
        slots.owner[slot] = -1


@part
def found_in(slots):  # type: ignore[no-untyped-def]
    """What the projections are made of: choices `(count, groups)`, weights and rows `(count,)`."""
    number = slots.number[0]
    return slots.choices_found[0][:number], slots.weights_found[0][:number], slots.rows_found[0][:number]


@part
def _grow(slots, slot):  # type: ignore[no-untyped-def]
    room, groups = slots.vertices[slot].shape
    slots.vertices[slot] = _grown(slots.vertices[slot], 2 * room, groups)
    slots.factors[slot] = _grown(slots.factors[slot], 2 * room, 2 * room)
    slots.reduced[slot] = _grown(slots.reduced[slot], 2, 2 * room)
    slots.weights[slot] = _grown_row(slots.weights[slot], 2 * room)


@part
def _record(slots, slot, count):  # type: ignore[no-untyped-def]
    """Adds the vertices that have a share in the projection to those found."""
    number = slots.number[0]
    if number + count > len(slots.weights_found[0]):
        length = 2 * (number + count)
        slots.choices_found[0] = _grown(slots.choices_found[0], length, slots.choices_found[0].shape[1])
        slots.weights_found[0] = _grown_row(slots.weights_found[0], length)
        slots.rows_found[0] = _grown_row(slots.rows_found[0], length)
    choices, weights, rows = slots.choices_found[0], slots.weights_found[0], slots.rows_found[0]
    vertices, shares = slots.vertices[slot], slots.weights[slot]
    for k in range(count):
        if shares[k] > 0.0:
            choices[number, : vertices.shape[1]] = vertices[k]
            choices[number, vertices.shape[1] :] = -1
            weights[number], rows[number] = shares[k], slots.owner[slot]
            number += 1
    slots.number[0] = number


@part
def _grown(matrix, rows, columns):  # type: ignore[no-untyped-def]
    """A larger matrix with `matrix` in its corner."""
    larger = np.empty((rows, columns), matrix.dtype)
    larger[: matrix.shape[0], : matrix.shape[1]] = matrix
    return larger


@part
def _grown_row(row, size):  # type: ignore[no-untyped-def]
    """A longer row that begins with `row` and goes on with 0."""
    larger = np.zeros(size, row.dtype)
    larger[: len(row)] = row
    return larger


def gathered(
    found: list[Found], groups: int, point: np.ndarray, gaps: np.ndarray, status: np.ndarray, like: Tensor
) -> Projection:
    """The projections of a batch of scores `like`, from what kernels found in parts of it.

    Raises:
        ValueError: a row's start was no structure.
    """
    if (status == BAD_START).any():
        raise_invalid_start(int(np.flatnonzero(status == BAD_START)[0]))
    choices, weights, rows = np.full((0, groups), -1, np.int32), np.empty(0), np.empty(0, np.int64)
    if found:
        widest = [np.pad(own, ((0, 0), (0, groups - own.shape[1])), constant_values=-1) for own, _, _ in found]
        choices, weights, rows = (np.concatenate(parts) for parts in (widest, [f[1] for f in found], [f[2] for f in found]))
    # By row, so that threads leave no trace.
    place = np.argsort(rows, kind="stable")
    return Projection(
        torch.from_numpy(point).to(like.dtype),
        torch.from_numpy(choices[place].astype(np.int64)),
        torch.from_numpy(weights[place]),
        torch.from_numpy(np.bincount(rows, minlength=len(status))),
        torch.from_numpy(gaps),
        torch.from_numpy(status != NOT_CONVERGED),
    )


def derivative(direction: Tensor, choices: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """The change of projections along `direction (batch, groups, parts)`, from the vertices that they are made of."""
    values = array(direction)
    result = np.zeros_like(values)
    ends = np.concatenate([[0], np.cumsum(counts.numpy())])
    support, shares = choices.contiguous().numpy(), weights.contiguous().numpy()
    cancelled = np.zeros(1, np.bool_)

    def work(first: int, last: int) -> None:
        projection_derivative(support, shares, ends, first, last, values, result, cancelled)

    if len(values):
        run_groups(work, np.diff(ends) ** 3.0 / 3 + np.diff(ends) ** 2 * values.shape[1], cancelled)
    return torch.from_numpy(result).to(direction.dtype)


@part
def _groups_used(vertices):  # type: ignore[no-untyped-def]
    """How many groups there are up to the last one in which a vertex has a part: a short row does not pay for a long one."""
    for groups in range(vertices.shape[1], 0, -1):
        for k in range(vertices.shape[0]):
            if vertices[k, groups - 1] >= 0:
                return groups
    return 0


@Kernel
def projection_derivative(vertices, weights, ends, first, last, directions, out, cancelled):  # type: ignore[no-untyped-def]
    """Writes the derivative of projections along `directions` into `out`, which is 0 on entry, for the rows in a range.

    The vertices of row r, of which it has a share in `weights`, are those from `ends[r]` to `ends[r + 1]`.
    """
    for row in range(first, last):
        if cancelled[0]:
            return
        groups = _groups_used(vertices[ends[row] : ends[row + 1]])
        support = vertices[ends[row] : ends[row + 1], :groups]
        change = active_set.direction(support, weights[ends[row] : ends[row + 1]], directions[row])
        total = np.zeros(out.shape[1:])
        active_set.combine(support, change, total)
        out[row] = total
