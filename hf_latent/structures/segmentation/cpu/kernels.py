"""What Python calls: each operation on a range of groups of a batch.

`values (batch, n, longest · labels)` are the scores of segments by the word that they begin at, in float32 or float64, and
`links` those of transitions, `(batch, labels²)`, `(1, labels²)` for all sentences alike, or `(1, 0)` for none; with -inf for
what is forbidden. `sizes (batch,)` are the lengths, and `order` lists the rows so that those of a group lie side by side,
longest first. `status (batch,)` says which rows have no structure, and where `cancelled (1,)` is set, nobody waits for the
results.
"""

import numpy as np

from hf_latent.inference.cpu.batch import DONE, NO_STRUCTURE
from hf_latent.inference.cpu.compiling import Kernel, part
from hf_latent.inference.cpu.exponentials import log_sum
from hf_latent.inference.cpu.random import drawn
from hf_latent.inference.cpu.simd import WIDTH, store
from hf_latent.structures.segmentation.cpu.recursions import (
    begin,
    charts,
    extend,
    forget_forbidden,
    gather_segments,
    gather_transitions,
    go_back,
    keep_ends,
    maximum,
    turn,
)


def room(kept: int, steps: int, longest: int, labels: int, linked: bool) -> int:
    """How many numbers (of `WIDTH` lanes) `charts` find room in."""
    width, pairs = (labels, labels * labels) if linked else (1, 0)
    return 2 * kept * width + steps * (longest * labels + pairs) + 2 * pairs + 2 * width


@Kernel
def best_segments(values, links, labels, sizes, order, first, last, scratch, found, status, cancelled):  # type: ignore[no-untyped-def]
    """Writes the segments of a best segmentation into `found (batch, n)`: `(length - 1) · labels + label` where one begins."""
    longest, linked = values.shape[2] // labels, links.shape[1] > 0
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        entries, exits, segments, turns, transitions, _, _ = charts(scratch, 0, size + 1, 1, longest, labels, linked)
        gather_transitions(links, rows, transitions[0])
        for end in range(1, size + 1):
            gather_segments(values, rows, sizes, end, labels, -np.inf, segments[0])
            begin(end, size + 1, longest, labels, linked, entries, segments[0])
            if linked:
                for label in range(labels):
                    store(exits[end], label, maximum(segments[0], label * longest, longest))
                turn(labels, transitions[0], exits[end], turns[0])
                for label in range(labels):
                    store(entries[end], label, maximum(turns[0], label * labels, labels))
            else:
                store(entries[end], 0, maximum(segments[0], 0, longest * labels))
        for lane in range(len(rows)):
            own = transitions[0, :, lane], entries[:, :, lane], exits[:, :, lane]
            if not _trace(values[rows[lane]], labels, linked, *own, sizes[rows[lane]], found[rows[lane]]):
                status[rows[lane]] = NO_STRUCTURE


@part
def _trace(values, labels, linked, transitions, entries, exits, end, found):  # type: ignore[no-untyped-def]
    """Goes back from the end of a sentence by what is best; whether there is something."""
    longest, following = values.shape[1] // labels, -1
    while end > 0:
        label, highest = 0, -np.inf
        if linked:
            for one in range(labels):
                score = exits[end, one] + (transitions[one * labels + following] if following >= 0 else 0.0)
                if score > highest:
                    label, highest = one, score
        choice, highest = -1, -np.inf
        for length in range(1, min(longest, end) + 1):
            for one in range(label if linked else 0, label + 1 if linked else labels):
                k = (length - 1) * labels + one
                score = values[end - length, k] + entries[end - length, one if linked else 0]
                if score > highest:
                    choice, highest = k, score
        if choice < 0:
            return False
        end -= choice // labels + 1
        found[end], following = choice, choice % labels
    return True


@Kernel
def log_partition(values, links, labels, sizes, order, first, last, scratch, out, status, cancelled):  # type: ignore[no-untyped-def]
    """Writes log Z into `out (batch,)`; remembers as many places as the longest segment has words."""
    longest, linked = values.shape[2] // labels, links.shape[1] > 0
    totals = np.empty((1, WIDTH))
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        own = charts(scratch, 0, longest + 1, 1, longest, labels, linked)
        _sum_up(values, links, labels, rows, sizes, longest + 1, own, totals, status)
        for lane in range(len(rows)):
            if sizes[rows[lane]] > 0:
                out[rows[lane]] = totals[0, lane]


@Kernel
def expectations(  # type: ignore[no-untyped-def]
    values, links, labels, weights, sizes, order, first, last, scratch, segments_out, links_out, status, cancelled
):
    """Each row's weight times the probabilities of its segments, and times how often each transition is expected.

    Into `segments_out (batch, n, longest · labels)`, 0 on entry, and `links_out (batch, labels²)`.
    """
    longest, linked = values.shape[2] // labels, links.shape[1] > 0
    totals = np.empty((1, WIDTH))
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        own = charts(scratch, 0, size + 1, size, longest, labels, linked)
        _sum_up(values, links, labels, rows, sizes, size + 1, own, totals, status)
        _, chances, segments, turns, _, flows, ends = own
        chances[:] = 0.0
        for end in range(size, 0, -1):
            go_back(end, rows, sizes, longest, labels, linked, chances, segments[end - 1], turns[end - 1], flows[0], ends)
        _scatter(segments, flows, labels, rows, sizes, weights, 1.0, segments_out, links_out)


@Kernel
def expectations_derivative(  # type: ignore[no-untyped-def]
    values, links, labels, weights, directions, link_directions,
    sizes, order, first, last, scratch, segments_out, links_out, rates_out, status, cancelled,
):  # fmt: skip
    """Writes the derivatives of what `expectations` gives, along directions of the shapes of the scores.

    `rates_out (batch,)` gets the derivative of each row's log Z.
    """
    longest, linked = values.shape[2] // labels, links.shape[1] > 0
    totals = (np.empty((1, WIDTH)), np.empty((1, WIDTH)))
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        kept = size + 1
        one = charts(scratch, 0, kept, size, longest, labels, linked)
        other = charts(scratch, len(scratch) // (2 * WIDTH), kept, size, longest, labels, linked)
        entries, chances, transitions = (one[0], other[0]), (one[1], other[1]), (one[4][0], other[4][0])
        flows, ends = (one[5][0], other[5][0]), (one[6], other[6])
        gather_transitions(links, rows, transitions[0])
        gather_transitions(link_directions, rows, transitions[1])
        forget_forbidden(transitions[0], transitions[1])
        for end in range(1, kept):
            segments, turns = (one[2][end - 1], other[2][end - 1]), (one[3][end - 1], other[3][end - 1])
            gather_segments(values, rows, sizes, end, labels, -np.inf, segments[0])
            gather_segments(directions, rows, sizes, end, labels, 0.0, segments[1])
            forget_forbidden(segments[0], segments[1])
            here = (ends[0][0], ends[1][0])
            extend(end, kept, longest, labels, linked, entries, segments, turns, transitions, here)
            keep_ends(end, rows, sizes, labels if linked else 1, ends)
        last_labels = (ends[0][1], ends[1][1])
        store(totals, 0, log_sum(last_labels, 0, labels if linked else 1))
        _check(totals[0], rows, sizes, status)
        chances[0][:], chances[1][:] = 0.0, 0.0
        for end in range(size, 0, -1):
            segments, turns = (one[2][end - 1], other[2][end - 1]), (one[3][end - 1], other[3][end - 1])
            go_back(end, rows, sizes, longest, labels, linked, chances, segments, turns, flows, ends)
        _scatter(other[2], other[5], labels, rows, sizes, weights, np.inf, segments_out, links_out)
        for lane in range(len(rows)):
            rates_out[rows[lane]] = totals[1][0, lane] if sizes[rows[lane]] > 0 else 0.0


@Kernel
def sample_segments(values, links, labels, seeds, sizes, order, first, last, scratch, found, status, cancelled):  # type: ignore[no-untyped-def]
    """Draws `found (samples, batch, n)`, each segmentation from a seed of `seeds (samples, batch)`, in uint64, going back."""
    longest, linked = values.shape[2] // labels, links.shape[1] > 0
    totals, state = np.empty((1, WIDTH)), np.empty(1, np.uint64)
    for group in range(first, last):
        if cancelled[0]:
            return
        rows = order[group * WIDTH : (group + 1) * WIDTH]
        size = sizes[rows[0]]
        own = charts(scratch, 0, size + 1, size, longest, labels, linked)
        _sum_up(values, links, labels, rows, sizes, size + 1, own, totals, status)
        _, _, segments, turns, _, _, ends = own
        for lane in range(len(rows)):
            index = rows[lane]
            for sample in range(len(seeds)):
                if status[index] != DONE or cancelled[0]:
                    break
                state[0] = seeds[sample, index]
                end, label = sizes[index], 0
                if linked and end > 0:
                    label = drawn(ends[1, :, lane], state)
                while end > 0:
                    begins, ended = (label, label + 1) if linked else (0, labels)
                    k = begins * longest + drawn(segments[end - 1, begins * longest : ended * longest, lane], state)
                    label = k // longest
                    end -= k % longest + 1
                    found[sample, index, end] = k % longest * labels + label
                    if linked and end > 0:
                        label = drawn(turns[end - 1, label * labels : (label + 1) * labels, lane], state)


@part
def _sum_up(values, links, labels, rows, sizes, kept, own, totals, status):  # type: ignore[no-untyped-def]
    """All shares into the charts, and log Z into `totals`; the `status` says which rows have no structure."""
    entries, _, segments, turns, transitions, _, ends = own
    longest, linked = values.shape[2] // labels, links.shape[1] > 0
    gather_transitions(links, rows, transitions[0])
    for end in range(1, sizes[rows[0]] + 1):
        step = (end - 1) % len(segments)
        gather_segments(values, rows, sizes, end, labels, -np.inf, segments[step])
        extend(end, kept, longest, labels, linked, entries, segments[step], turns[step], transitions[0], ends[0])
        keep_ends(end, rows, sizes, labels if linked else 1, ends)
    store(totals, 0, log_sum(ends[1], 0, labels if linked else 1))
    _check(totals, rows, sizes, status)


@part
def _check(totals, rows, sizes, status):  # type: ignore[no-untyped-def]
    for lane in range(len(rows)):
        if sizes[rows[lane]] > 0 and not totals[0, lane] > -np.inf:
            status[rows[lane]] = NO_STRUCTURE


@part
def _scatter(segments, flows, labels, rows, sizes, weights, bound, segments_out, links_out):  # type: ignore[no-untyped-def]
    """The lanes back into rows of the batch, times their weights; rounding apart, those of segments are at most `bound`."""
    longest = segments.shape[1] // labels
    for lane in range(len(rows)):
        index = rows[lane]
        for end in range(1, sizes[index] + 1):
            for length in range(1, min(longest, end) + 1):
                for label in range(labels):
                    x = segments[end - 1, label * longest + length - 1, lane]
                    segments_out[index, end - length, (length - 1) * labels + label] = weights[index] * min(x, bound)
        for k in range(links_out.shape[1]):
            links_out[index, k] = weights[index] * flows[0, k, lane]
