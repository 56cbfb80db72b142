"""The recursions over a sentence, eight sentences at a time: `WIDTH` lanes, each of its own length.

Place j of a sentence is where its word j begins and j words have ended. The segments that end at a place stand in a row, first
by label and then by length: `label · longest + length - 1`. Sums are log-sums, since a segment costs an exponential in any case
(segmentations differ in the number of their parts, so that no constant can be taken out of all): nothing overflows or is lost.

Each log-sum leaves the shares of its terms behind. Going back, probabilities are products of shares alone: a segment has the
probability that one with its label ends where it does, times its share there. Beyond a sentence, terms are -inf and shares 0.

Where no transitions are scored, the label of a segment does not matter to the next, and one log-sum at each place is all.
"""

import numpy as np

from hf_latent.inference.cpu.compiling import part
from hf_latent.inference.cpu.exponentials import log_sum
from hf_latent.inference.cpu.simd import WIDTH, chart, constant, copy_lane, increase, larger, load, plus, row, store, times


@part
def charts(scratch, first, kept, steps, longest, labels, linked):  # type: ignore[no-untyped-def]
    """Room for a group of which `kept` places and the shares at `steps` of them are remembered, behind the `first` numbers.

    Returns a row for each place: `entries`, the log-sums over all that comes before a segment of each label that begins there,
    and `exits`, for what is computed of segments that end there; a row for each step: `segments` that end at a place, and
    `turns`, the terms `next label · labels + last label` of the transitions there; the scores of `transitions`, and their
    `flows`, 0; and two rows `ends`, for one place and for the ends of sentences. Without transitions (not `linked`), one label
    stands for all.
    """
    width, pairs = (labels, labels * labels) if linked else (1, 0)
    entries = chart(scratch, first, kept, width)
    first += kept * width
    exits = chart(scratch, first, kept, width)
    first += kept * width
    segments = chart(scratch, first, steps, longest * labels)
    first += steps * longest * labels
    turns = chart(scratch, first, steps, pairs)
    first += steps * pairs
    transitions = chart(scratch, first, 1, pairs)
    flows = chart(scratch, first + pairs, 1, pairs)
    ends = chart(scratch, first + 2 * pairs, 2, width)
    entries[0], ends[:], flows[:] = 0.0, 0.0, 0.0
    return entries, exits, segments, turns, transitions, flows, ends


@part
def gather_segments(values, rows, sizes, end, labels, outside, lanes):  # type: ignore[no-untyped-def]
    """Into the row `lanes`, the `values (batch, n, longest · labels)` of segments that end at a place; else `outside`."""
    longest = values.shape[2] // labels
    for lane in range(WIDTH):
        inside = lane < len(rows) and end <= sizes[rows[lane]]
        for length in range(1, longest + 1):
            if inside and length <= end:
                own = values[rows[lane], end - length]
                for label in range(labels):
                    lanes[label * longest + length - 1, lane] = own[(length - 1) * labels + label]
            else:
                for label in range(labels):
                    lanes[label * longest + length - 1, lane] = outside


@part
def gather_transitions(values, rows, lanes):  # type: ignore[no-untyped-def]
    """Into the row `lanes` what `values (batch, labels²)`, or of one row for all, say of the transitions."""
    for lane in range(WIDTH):
        own = values[min(rows[lane] if lane < len(rows) else 0, len(values) - 1)]
        for k in range(len(lanes)):
            lanes[k, lane] = own[k]


@part
def forget_forbidden(scores, directions):  # type: ignore[no-untyped-def]
    """What is forbidden moves nothing."""
    for k in range(len(scores)):
        for lane in range(WIDTH):
            if scores[k, lane] == -np.inf:
                directions[k, lane] = 0.0


@part
def begin(end, kept, longest, labels, linked, entries, segments):  # type: ignore[no-untyped-def]
    """Adds to the scores of segments that end at a place what comes before each."""
    for label in range(labels):
        own = label if linked else 0
        for length in range(1, min(longest, end) + 1):
            increase(segments, label * longest + length - 1, load(row(entries, (end - length) % kept, 0), own))


@part
def turn(labels, transitions, ends, turns):  # type: ignore[no-untyped-def]
    """The terms of the transitions at a place, from what there is of each label that ends there."""
    for following in range(labels):
        for label in range(labels):
            x = plus(load(ends, label), load(transitions, label * labels + following))
            store(turns, following * labels + label, x)


@part
def extend(end, kept, longest, labels, linked, entries, segments, turns, transitions, ends):  # type: ignore[no-untyped-def]
    """The log-sums at a place, from those at the places before. The rows `segments`, of scores, and `turns` become shares.

    The row `ends` gets the log-sums over all that ends there, for each label.
    """
    begin(end, kept, longest, labels, linked, entries, segments)
    now = row(entries, end % kept, 0)
    if linked:
        for label in range(labels):
            store(ends, label, log_sum(segments, label * longest, longest))
        turn(labels, transitions, ends, turns)
        for following in range(labels):
            store(now, following, log_sum(turns, following * labels, labels))
    else:
        store(ends, 0, log_sum(segments, 0, longest * labels))
        store(now, 0, load(ends, 0))


@part
def keep_ends(end, rows, sizes, width, ends):  # type: ignore[no-untyped-def]
    """Of the sentences that end at a place, what there is of each label, into the second row of `ends`."""
    for lane in range(len(rows)):
        if sizes[rows[lane]] == end:
            for label in range(width):
                copy_lane(row(ends, 0, label), row(ends, 1, label), lane)


@part
def go_back(end, rows, sizes, longest, labels, linked, chances, segments, turns, flows, ends):  # type: ignore[no-untyped-def]
    """Turns the shares of the segments that end at a place into probabilities, and adds these to the `chances`.

    `chances[j, label]`: the probability that a segment with this label begins at place j; 0 on entry, and complete here for all
    places from `end` on. `ends`, of which the second row has the shares of the last labels, gets those of all
    that ends here.
    """
    here, now = row(ends, 0, 0), row(chances, end, 0)
    if linked:
        for label in range(labels):
            store(here, label, constant(here, 0.0))
        for following in range(labels):
            for label in range(labels):
                x = times(load(now, following), load(turns, following * labels + label))
                increase(flows, label * labels + following, x)
                increase(here, label, x)
    else:
        store(here, 0, load(now, 0))
    for lane in range(len(rows)):
        if sizes[rows[lane]] == end:
            for label in range(labels if linked else 1):
                copy_lane(row(ends, 1, label), row(ends, 0, label), lane)
    for label in range(labels):
        own = label if linked else 0
        chance = load(here, own)
        for length in range(1, min(longest, end) + 1):
            x = times(chance, load(segments, label * longest + length - 1))
            store(segments, label * longest + length - 1, x)
            increase(row(chances, end - length, 0), own, x)


@part
def maximum(terms, first, count):  # type: ignore[no-untyped-def]
    """The largest of `count` terms of a row."""
    highest = load(terms, first)
    for k in range(first + 1, first + count):
        highest = larger(load(terms, k), highest)
    return highest
