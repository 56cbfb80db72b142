"""Trees compared and counted."""

import statistics
from collections.abc import Sequence
from itertools import combinations

import torch

from hf_latent.files import shorten
from hf_latent.structures import DependencyTree
from hf_latent.structures.dependency_tree.conversions import heads_from_arcs
from hf_latent.trees.tree import Tree


def attachment_score(predicted: Sequence[Tree], gold: Sequence[Tree], directed: bool = True) -> float:
    """The share of all words whose head is the gold one (unlabelled attachment score).

    With `directed=False`, a word also counts if it is joined to its gold head the other way round, as its head (Klein and
    Manning 2004).

    Raises:
        ValueError: sentences of other lengths, or another number of them, in `predicted` than in `gold`; no words at all.
    """
    if len(predicted) != len(gold):
        raise ValueError(f"`predicted` and `gold` must have a tree for each sentence, got {len(predicted)} and {len(gold)}.")
    right = words = 0
    for ours, theirs in zip(predicted, gold, strict=True):
        if len(ours.words) != len(theirs.words):
            raise ValueError(
                f"`predicted` and `gold` must be trees over the same words, got {shorten(' '.join(ours.words))!r} and "
                f"{shorten(' '.join(theirs.words))!r}."
            )
        words += len(theirs.words)
        for word, (head, true) in enumerate(zip(ours.heads, theirs.heads, strict=True), start=1):
            right += head == true or (not directed and true > 0 and ours.heads[true - 1] == word)
    if not words:
        raise ValueError("`gold` has no words, so that there is nothing to score.")
    return right / words


def tree_agreement(runs: Sequence[Sequence[Tree]]) -> float:
    """How far the trees of several runs (or seeds, or models) over the same sentences agree.

    The share of words with the same head (`attachment_score`), as a mean over all pairs of runs: 1 where all runs find the same
    trees. Two random trees agree by chance in some words, the more, the shorter the sentences are: see `baseline_trees`.

    Args:
        runs: of each run, a tree for each sentence, such as `parse` returns.

    Raises:
        ValueError: fewer than two runs; runs over other sentences, or without words.
    """
    if len(runs) < 2:
        raise ValueError(f"`runs` must be the trees of two runs at least, got {len(runs)}.")
    return statistics.fmean(attachment_score(one, other) for one, other in combinations(runs, 2))


def tree_statistics(trees: Sequence[Tree]) -> dict[str, float]:
    """What the trees of a corpus look like.

    Returns: `depth` (mean over trees of the deepest word's number of arcs to ROOT), `roots` (mean number of words below
    ROOT), `flat` (share of trees in which all words have the same head), `chain` (share of trees in which each word hangs from
    the one before it, or each from the one after it), `arc_length` (mean distance between a word and its
    head, ROOT apart), `to_the_left` (share of those heads that stand before their word), `projective` (share of trees).
    Sentences without words count for nothing. Without any, all is NaN; where all words hang from ROOT, so are the two of heads.
    """
    trees = [tree for tree in trees if tree.words]
    arcs = [(word, head) for tree in trees for word, head in enumerate(tree.heads, start=1) if head]

    def mean(values: list[float]) -> float:
        return statistics.fmean(values) if values else float("nan")

    return {
        "depth": mean([max(tree.depths) for tree in trees]),
        "roots": mean([tree.heads.count(0) for tree in trees]),
        "flat": mean([tree.is_flat for tree in trees]),
        "chain": mean([tree.heads in chains(len(tree.words)) for tree in trees]),
        "arc_length": mean([abs(word - head) for word, head in arcs]),
        "to_the_left": mean([head < word for word, head in arcs]),
        "projective": mean([tree.is_projective for tree in trees]),
    }


def chains(n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The heads of `n` words each of which hangs from the one before, and from the one after."""
    return tuple(range(n)), (*range(2, n + 1), 0) if n else ()


def baseline_trees(gold: Sequence[Tree], seed: int = 0, structure: DependencyTree | None = None) -> dict[str, list[Tree]]:
    """Trees over the same words that no training is needed for: what an attachment score is to be held against.

    "flat" (all words hang from ROOT), "right-branching" (each word hangs from the one before), "left-branching" (each from the
    one after), and "random" (uniform over the trees of the `structure`, by default projective ones with a single root).
    """
    structure = DependencyTree(projective=True, single_root=True) if structure is None else structure
    generator = torch.Generator().manual_seed(seed)

    def random_heads(n: int) -> tuple[int, ...]:
        return tuple(heads_from_arcs(structure.sample(torch.zeros(1, n, n + 1), generator=generator)[0])[0].tolist())

    shapes = {
        "flat": lambda n: (0,) * n,
        "right-branching": lambda n: chains(n)[0],
        "left-branching": lambda n: chains(n)[1],
        "random": random_heads,
    }
    return {name: [Tree(tree.words, shape(len(tree.words))) for tree in gold] for name, shape in shapes.items()}
