"""Trees and what is computed about them, by definition: itertools and plain loops, none of the library's code."""

import itertools
from functools import cache

import torch
from torch import Tensor


@cache
def trees(n: int, projective: bool, single_root: bool) -> Tensor:
    """All trees of n words, `(count, n, n + 1)` in float64."""
    found = [
        heads
        for heads in itertools.product(range(n + 1), repeat=n)
        if _reaches_root(heads)
        and (not single_root or n == 0 or heads.count(0) == 1)
        and (not projective or not _crosses(heads))
    ]
    arcs = torch.zeros(len(found), n, n + 1, dtype=torch.float64)
    for place, heads in enumerate(found):
        for word, head in enumerate(heads):
            arcs[place, word, head] = 1
    return arcs


def _reaches_root(heads: tuple[int, ...]) -> bool:
    for word in range(1, len(heads) + 1):
        seen = set()
        while word:
            if word in seen:
                return False
            seen.add(word)
            word = heads[word - 1]
    return True


def _crosses(heads: tuple[int, ...]) -> bool:
    spans = [sorted((word, head)) for word, head in enumerate(heads, start=1)]
    return any(a < c < b < d for a, b in spans for c, d in spans)


def tree_scores(scores: Tensor, projective: bool, single_root: bool) -> tuple[Tensor, Tensor]:
    """All trees over one sentence's `scores (n, n + 1)`, and the score of each."""
    structures = trees(scores.shape[0], projective, single_root)
    return structures, (structures * scores.double()).sum(dim=(1, 2))


def project(scores: Tensor, vertices: Tensor, steps: int = 20000) -> Tensor:
    """The projection of `scores` onto conv(vertices), by a method of its own: Frank-Wolfe with away steps."""
    flat, goal = vertices.flatten(1), scores.double().flatten()
    weights = torch.zeros(len(flat), dtype=torch.float64)
    weights[(flat @ goal).argmax()] = 1
    for _ in range(steps):
        point = weights @ flat
        products = flat @ (goal - point)
        best = products.argmax()
        away = products.where(weights > 0, torch.inf).argmin()
        direction = flat[best] - flat[away]
        gap = products[best] - products[away]
        if gap < 1e-13:
            break
        step = min(gap / direction.square().sum(), weights[away])
        weights[best] += step
        weights[away] -= step
    return (weights @ flat).view(scores.shape)
