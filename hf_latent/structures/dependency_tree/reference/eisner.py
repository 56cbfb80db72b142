"""Projective trees: Eisner's algorithm (Eisner 1996), batched over sentences and over the spans of one width.

One recursion serves sums (`logsumexp`: the log-partition) and maxima (`amax`: the best score); going back through it
with the share that each split had in its span gives the marginals, or the arcs of the best tree.

Positions are ROOT = 0 and words 1 to n, so N = n + 1. `I(i -> j)` is an incomplete span (the arc from i to j, and all
below it on the inner side), `C(i -> j)` a complete one (i and everything that hangs from it up to j):

    I(i -> j) = s(i -> j) + (+)_{i <= k < j}  C(i -> k) + C(j -> k + 1)
    I(j -> i) = s(j -> i) + the same sum
    C(i -> j) = (+)_{i < k <= j}  I(i -> k) + C(k -> j)
    C(j -> i) = (+)_{i <= k < j}  C(k -> i) + I(j -> k)

Time O(n^3) in O(n) vectorized steps, memory O(n^2).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hf_latent.inference.normalize import FORBIDDEN
from hf_latent.inference.random import uniforms

Reduce = Callable[..., Tensor]


@dataclass
class Charts:
    """Each span stands where its left end is (`_start`, column = width) or its right end (`_end`, column = N - 1 - width).

    In these two layouts all splits of all spans of one width are two slices, with no gather.
    """

    right_start: Tensor
    right_end: Tensor
    left_start: Tensor
    left_end: Tensor
    right_arc_start: Tensor
    left_arc_end: Tensor

    @classmethod
    def filled(cls, like: Tensor, value: float) -> "Charts":
        batch, size = like.shape[:2]
        return cls(*(like.new_full((batch, size, size), value) for _ in range(6)))

    def arc_splits(self, width: int) -> tuple[Tensor, Tensor]:
        """C(i -> k) and C(j -> k + 1), each `(batch, spans, width)`."""
        size = self.right_start.shape[1]
        return self.right_start[:, : size - width, :width], self.left_end[:, width:, size - width :]

    def right_splits(self, width: int) -> tuple[Tensor, Tensor]:
        """I(i -> k) and C(k -> j)."""
        size = self.right_start.shape[1]
        return self.right_arc_start[:, : size - width, 1 : width + 1], self.right_end[:, width:, size - width :]

    def left_splits(self, width: int) -> tuple[Tensor, Tensor]:
        """C(k -> i) and I(j -> k)."""
        size = self.right_start.shape[1]
        return self.left_start[:, : size - width, :width], self.left_arc_end[:, width:, size - 1 - width : size - 1]


def _arc_terms(charts: Charts, width: int, single_root: bool) -> Tensor:
    inner, outer = charts.arc_splits(width)
    terms = inner + outer
    if single_root:
        # ROOT's arc must be its first: nothing may hang from it already (only the split k = 0 is left).
        terms = torch.cat([terms[:, :, :1], terms[:, :, 1:].index_fill(1, terms.new_zeros(1).long(), FORBIDDEN)], dim=2)
    return terms


def inside(arcs: Tensor, single_root: bool, reduce: Reduce) -> Charts:
    """The charts, from `arcs (batch, N, N)` where `arcs[b, i, j]` scores j as the head of i."""
    size = arcs.shape[1]
    charts = Charts.filled(arcs, FORBIDDEN)
    charts.right_start[:, :, 0] = charts.left_start[:, :, 0] = 0
    charts.right_end[:, :, -1] = charts.left_end[:, :, -1] = 0
    for width in range(1, size):
        spans = size - width
        splits = reduce(_arc_terms(charts, width, single_root), dim=-1)
        charts.right_arc_start[:, :spans, width] = splits + arcs.diagonal(-width, 1, 2)
        charts.left_arc_end[:, width:, -1 - width] = splits + arcs.diagonal(width, 1, 2)
        right = reduce(torch.add(*charts.right_splits(width)), dim=-1)
        charts.right_start[:, :spans, width] = charts.right_end[:, width:, -1 - width] = right
        left = reduce(torch.add(*charts.left_splits(width)), dim=-1)
        charts.left_start[:, :spans, width] = charts.left_end[:, width:, -1 - width] = left
    return charts


def outside(charts: Charts, goal: Tensor, single_root: bool, share: Reduce) -> Tensor:
    """How much each arc has a part in the span from ROOT to `goal (batch,)`; same layout as the arcs of `inside`.

    `share` is the derivative of the `reduce` that filled the charts: softmax for logsumexp, a one-hot for the maximum.
    """
    size = charts.right_start.shape[1]
    flow = Charts.filled(charts.right_start, 0.0)
    flow.right_start[:, 0] = torch.nn.functional.one_hot(goal, size).to(flow.right_start)
    arcs = torch.zeros_like(charts.right_start)
    for width in range(size - 1, 0, -1):
        spans = size - width
        for splits, parts, total in (
            (
                charts.right_splits,
                flow.right_splits,
                flow.right_start[:, :spans, width] + flow.right_end[:, width:, -1 - width],
            ),
            (charts.left_splits, flow.left_splits, flow.left_start[:, :spans, width] + flow.left_end[:, width:, -1 - width]),
        ):
            shares = share(torch.add(*splits(width)), dim=-1) * total[:, :, None]
            for part in parts(width):
                part += shares
        right, left = flow.right_arc_start[:, :spans, width], flow.left_arc_end[:, width:, -1 - width]
        arcs.diagonal(-width, 1, 2).copy_(right)
        arcs.diagonal(width, 1, 2).copy_(left)
        shares = share(_arc_terms(charts, width, single_root), dim=-1) * (right + left)[:, :, None]
        for part in flow.arc_splits(width):
            part += shares
    return arcs


def one_hot_argmax(terms: Tensor, dim: int) -> Tensor:
    """1 at the first maximum along `dim`, else 0: a subgradient of `amax` that is always one vertex."""
    return torch.zeros_like(terms).scatter_(dim, terms.argmax(dim, keepdim=True), 1.0)


def _with_root_row(scores: Tensor) -> Tensor:
    root = scores.new_full((scores.shape[0], 1, scores.shape[2]), FORBIDDEN)  # ROOT has no head
    return torch.cat([root, scores], dim=1)


def log_partition(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """log of the sum over projective trees of exp(score): `(batch,)` from normalized scores `(batch, n, n + 1)`."""
    charts = inside(_with_root_row(scores), single_root, torch.logsumexp)
    return charts.right_start[:, 0].gather(1, lengths[:, None])[:, 0]


def marginals(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """The probability of each arc: the gradient of `log_partition`."""
    charts = inside(_with_root_row(scores), single_root, torch.logsumexp)
    return outside(charts, lengths, single_root, torch.softmax)[:, 1:]


def argmax(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """The arcs of a highest-scoring projective tree."""
    charts = inside(_with_root_row(scores), single_root, torch.amax)
    return outside(charts, lengths, single_root, one_hot_argmax)[:, 1:]


def sample(scores: Tensor, lengths: Tensor, seeds: Tensor, single_root: bool) -> Tensor:
    """The heads of drawn trees, `(samples, batch, n)`, n + 1 beyond the sentence, for each of `seeds (samples, batch)`.

    From the span over the sentence down: which arc ends it, and where the two spans below that arc meet.
    """
    charts = inside(_with_root_row(scores), single_root, torch.logsumexp)
    draws = uniforms(seeds, 2 * scores.shape[1]).tolist()
    heads = torch.full((*seeds.shape, scores.shape[1]), scores.shape[1] + 1)
    for row, length in enumerate(lengths.tolist()):
        own = Charts(*(getattr(charts, part.name)[row : row + 1].cpu() for part in fields(charts)))
        for turn in range(len(seeds)):
            numbers, spans = iter(draws[turn][row]), [(0, length)]

            def drawn(terms: Tensor, numbers: Iterator[float] = numbers) -> int:
                shares = torch.softmax(terms, 0)
                sums = shares.cumsum(0)
                possible = (shares > 0) & (sums > next(numbers) * sums[-1])
                return int(possible.int().argmax() if possible.any() else shares.argmax())

            while spans:
                head, end = spans.pop()
                if head == end:
                    continue
                start, width = min(head, end), abs(end - head)
                splits = own.right_splits(width) if head < end else own.left_splits(width)
                word = start + int(head < end) + drawn(torch.add(*splits)[0, start])
                heads[turn, row, word - 1] = head
                start, width = min(head, word), abs(word - head)
                split = start + drawn(_arc_terms(own, width, single_root)[0, start])
                spans += [(word, end), (start, split), (start + width, split + 1)]
    return heads.to(scores.device)
