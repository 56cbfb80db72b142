"""The k best sequences of tags by one pass that keeps k beginnings for each tag (Forney 1973; list Viterbi), row by row."""

import numpy as np

from hf_latent.inference.cpu.compiling import Kernel
from hf_latent.inference.cpu.k_best import insert


@Kernel
def k_best_tags(emissions, transitions, sizes, first, last, found, scores, cancelled):  # type: ignore[no-untyped-def]
    """Writes the tags of the best sequences into `found (batch, k, n)`, and their `scores (batch, k)`, -inf for none."""
    tags, k = emissions.shape[2], scores.shape[1]
    shared = transitions.shape[0] == 1 and transitions.shape[1] == 1
    for row in range(first, last):
        n = sizes[row]
        # Of word i and tag t, the scores of the beginnings that are kept, best first, and which of the word before each has.
        best = np.full((n, tags, k), -np.inf)
        came_from = np.zeros((n, tags, k), np.int64)
        for i in range(n):
            if cancelled[0]:
                return
            for u in range(tags):
                if i == 0:
                    best[0, u, 0] = emissions[row, 0, u]
                    continue
                step = transitions[0, 0] if shared else transitions[row, i - 1]
                for t in range(tags):
                    for place in range(k):
                        score = best[i - 1, t, place] + step[t * tags + u] + emissions[row, i, u]
                        if not score > best[i, u, k - 1]:
                            break
                        insert(best[i, u], came_from[i, u], score, t * k + place)
        scores[row] = -np.inf
        if n == 0:
            scores[row, 0] = 0.0
            continue
        ends = np.zeros(k, np.int64)
        for u in range(tags):
            for place in range(k):
                if not best[n - 1, u, place] > scores[row, k - 1]:
                    break
                insert(scores[row], ends, best[n - 1, u, place], u * k + place)
        for rank in range(k):
            if scores[row, rank] > -np.inf:
                at = ends[rank]
                for i in range(n - 1, -1, -1):
                    found[row, rank, i] = at // k
                    at = came_from[i, at // k, at % k]
