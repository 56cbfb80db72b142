"""Dependency trees: each word has one head, a word or ROOT, and no word is its own ancestor."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_latent.inference.checks import check_floating, describe
from hf_latent.structures.declared import DeclaredStructure, declare
from hf_latent.structures.dependency_tree.cpu.operations import TreeKernels
from hf_latent.structures.dependency_tree.enumeration import all_trees
from hf_latent.structures.dependency_tree.reference.masking import arc_mask
from hf_latent.structures.dependency_tree.reference.trees import TreeReference


@declare("tree", reference=TreeReference(), cpu=TreeKernels())
@dataclass(frozen=True)
class DependencyTree(DeclaredStructure):
    """All dependency trees over the words of a sentence, scored arc by arc.

    `scores[b, i, j]`, shape `(batch, n, n + 1)`: column j as the head of word i; column 0 is ROOT, column j >= 1 is word
    j - 1. So each row of an argmax, of marginals or of a projection is a distribution over the heads of a word and sums to
    1. `lengths (batch,)` is the number of words; arcs from or to what lies beyond, and arcs of a word to itself, are
    ignored on input and exactly 0 on output. A score of -inf forbids the arc. A sentence of length 0 has one tree, without
    arcs.

    Attributes:
        projective: only trees without crossing arcs (with ROOT before the first word). Otherwise all trees.
        single_root: only trees in which exactly one word has ROOT as its head. Otherwise one or more.

    The argmax is by Eisner (1996) or Chu-Liu/Edmonds, sums by the inside algorithm or the matrix-tree theorem, samples from
    these run backwards. Every operation costs O(n³) a sentence; `sparsemap` as many argmaxes as its solution has trees, or some
    more.

    On the CPU, `project_from` ends at the latest after 48 trees were taken in or dropped: on real sentences, half of the rows
    are exact (to 0.15 % of the step) by then, and the others have an error of some 3 % of it. `project_from_marginals` finds,
    for more than ten words, the best combination of 48 points, marginals of tilted scores and trees (see
    `cpu.from_marginals`), or of fewer if they are known to be enough (an error of 0.1 % of the step); with 48, the error is
    some 5 to 10 % of the step on real sentences.
    """

    projective: bool = True
    single_root: bool = False

    event_dims: ClassVar[int] = 2
    group_dims: ClassVar[int] = 1

    def check_shape(self, scores: object, name: str = "scores") -> Tensor:
        """`scores`, or an error that names what is wrong with their type or shape."""
        scores = check_floating(scores, "(batch, n, n + 1)", 3, name)
        if scores.shape[2] != scores.shape[1] + 1:
            raise ValueError(
                f"`{name}` must have shape (batch, n, n + 1): a row for each word, a column for ROOT (first) and each word as "
                f"a head; got {describe(scores)}. `hf_latent.structures.dependency_tree.conversions` turns other layouts into "
                "this one."
            )
        return scores

    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True for arcs within the sentence, from a word to another or ROOT."""
        return arc_mask(lengths, scores.shape[1])

    def num_parts(self, lengths: Tensor) -> Tensor:
        """As many as there are words: each has one head."""
        return lengths

    def enumerate(self, size: int) -> Tensor:
        """All trees over `size` words, `(count, size, size + 1)`.

        Raises:
            ValueError: more than 7 words, which have more than 262,144 trees.
        """
        return all_trees(size, self.projective, self.single_root)
