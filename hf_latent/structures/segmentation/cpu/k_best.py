"""The k best segmentations by one pass that keeps k beginnings at each place (Forney 1973; list Viterbi), row by row."""

import numpy as np

from hf_latent.inference.cpu.compiling import Kernel, part
from hf_latent.inference.cpu.k_best import insert


@Kernel
def k_best_segments(values, links, labels, sizes, first, last, found, scores, cancelled):  # type: ignore[no-untyped-def]
    """Writes the best segmentations into `found (batch, k, n)`, as `best_segments` does, and their `scores (batch, k)`."""
    k, linked = scores.shape[1], links.shape[1] > 0
    width = labels if linked else 1
    for row in range(first, last):
        n = sizes[row]
        # At each place, for each label: the scores that are kept, best first, and which segment and rank, or label and rank,
        # led there. `exits` end there with a segment of the label; `entries` are what comes before one that begins there.
        exits, exit_from = np.full((n + 1, width, k), -np.inf), np.zeros((n + 1, width, k), np.int64)
        entries, entry_from = np.full((n + 1, width, k), -np.inf), np.zeros((n + 1, width, k), np.int64)
        entries[0, :, 0] = 0.0
        for end in range(1, n + 1):
            if cancelled[0]:
                return
            _collect(values[row], labels, linked, end, entries, exits[end], exit_from[end])
            if linked:
                own = links[min(row, len(links) - 1)]
                for following in range(labels):
                    for label in range(labels):
                        for rank in range(k):
                            score = exits[end, label, rank] + own[label * labels + following]
                            if not score > entries[end, following, k - 1]:
                                break
                            insert(entries[end, following], entry_from[end, following], score, label * k + rank)
            else:
                entries[end] = exits[end]
                entry_from[end, 0] = np.arange(k)
        scores[row] = -np.inf
        ends = np.zeros(k, np.int64)
        if n == 0:
            scores[row, 0] = 0.0
            continue
        for label in range(width):
            for rank in range(k):
                if exits[n, label, rank] > scores[row, k - 1]:
                    insert(scores[row], ends, exits[n, label, rank], label * k + rank)
        for place in range(k):
            if scores[row, place] > -np.inf:
                _trace(labels, linked, n, k, ends[place], exit_from, entry_from, found[row, place])


@part
def _collect(values, labels, linked, end, entries, scores, sources):  # type: ignore[no-untyped-def]
    """The best of all that ends at a place with a segment of each label, `scores (labels or 1, k)`."""
    k = scores.shape[1]
    for length in range(1, min(values.shape[1] // labels, end) + 1):
        for label in range(labels):
            own, segment = label if linked else 0, (length - 1) * labels + label
            for rank in range(k):
                score = entries[end - length, own, rank] + values[end - length, segment]
                if not score > scores[own, k - 1]:
                    break
                insert(scores[own], sources[own], score, segment * k + rank)


@part
def _trace(labels, linked, end, k, at, exit_from, entry_from, found):  # type: ignore[no-untyped-def]
    """Goes back from `at`, the label and rank at the end of a sentence."""
    while end > 0:
        source = exit_from[end, at // k, at % k]
        segment, rank = source // k, source % k
        end -= segment // labels + 1
        found[end] = segment
        at = entry_from[end, segment % labels if linked else 0, rank]
