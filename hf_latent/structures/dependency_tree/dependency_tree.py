"""Dependency trees: each word has one head, a word or ROOT, and no word is its own ancestor."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_latent.inference.active_set import MAX_ITER, SparseMAPSolution
from hf_latent.structures.dependency_tree import operators
from hf_latent.structures.dependency_tree.enumeration import all_trees
from hf_latent.structures.structure import Structure, TopK


@dataclass(frozen=True)
class DependencyTree(Structure):
    """All dependency trees over the words of a sentence, scored arc by arc.

    `scores[b, i, j]`, shape `(batch, n, n + 1)`: column j as the head of word i; column 0 is ROOT, column j >= 1 is word
    j - 1. So each row of an argmax, of marginals or of a projection is a distribution over the heads of a word and sums to
    1. `lengths (batch,)` is the number of words; arcs from or to what lies beyond, and arcs of a word to itself, are
    ignored on input and exactly 0 on output. A score of -inf forbids the arc. A sentence of length 0 has one tree, without
    arcs.

    Attributes:
        projective: only trees without crossing arcs (with ROOT before the first word). Otherwise all trees.
        single_root: only trees in which exactly one word has ROOT as its head. Otherwise one or more.

    Every operation costs O(n³) a sentence; `sparsemap` as many argmaxes as its solution has trees, or some more.
    """

    projective: bool = True
    single_root: bool = False

    event_dims: ClassVar[int] = 2
    group_dims: ClassVar[int | None] = 1

    def check(self, scores: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`scores`, with -inf for all that is forbidden, and int64 `lengths`, or an error that names what is wrong."""
        return operators.check_tree_scores(scores, lengths)

    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True for arcs within the sentence, from a word to another or ROOT."""
        return operators.arc_mask(lengths, scores.shape[1])

    def num_parts(self, lengths: Tensor) -> Tensor:
        """As many as there are words: each has one head."""
        return lengths

    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The arcs of a highest-scoring tree (Eisner 1996, or Chu-Liu/Edmonds); no gradient."""
        return operators.tree_argmax(scores, lengths, self.projective, self.single_root)

    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log Σ over trees of exp(score), `(batch,)` (inside algorithm, or matrix-tree theorem); float32 or better."""
        return operators.tree_log_partition(scores, lengths, self.projective, self.single_root)

    def marginals(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The probability of each arc (inside-outside, or matrix-tree theorem); differentiable once."""
        return operators.tree_marginals(scores, lengths, self.projective, self.single_root)

    def sparsemap(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tol: float | None = None,
        max_iter: int = MAX_ITER,
        start: Tensor | None = None,
    ) -> Tensor:
        """The Euclidean projection onto the convex hull of the trees (Niculae et al. 2018); see `Structure.sparsemap`."""
        return operators.tree_sparsemap(scores, lengths, self.projective, self.single_root, tol, max_iter, start)

    def sparsemap_solution(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tol: float | None = None,
        max_iter: int = MAX_ITER,
        start: Tensor | None = None,
    ) -> SparseMAPSolution:
        """The projection, the trees that it is made of, and whether it converged; see `Structure.sparsemap_solution`."""
        return operators.tree_sparsemap_solution(scores, lengths, self.projective, self.single_root, tol, max_iter, start)

    def project_from(self, targets: Tensor, start: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The projection of `targets` onto the convex hull of the trees, begun at the trees `start`; no gradient.

        On the CPU, it ends at the latest after 48 trees were taken in or dropped. On real sentences, half of the rows are exact
        (to 0.15 % of the step) by then, and the others have an error of some 3 % of it. Elsewhere, by `sparsemap`.
        """
        return operators.tree_projection_from(targets, start, lengths, self.projective, self.single_root)

    def project_from_marginals(self, targets: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The projection of `targets`, which lie near Marg(scores), onto the convex hull of the trees; no gradient.

        On the CPU, for more than ten words, as the best combination of 48 points, marginals of tilted scores and trees (see
        `cpu.from_marginals`), or of fewer if they are known to be enough (an error of 0.1 % of the step from the marginals to
        the target). With 48, the error is some 5 to 10 % of the step on real sentences. Otherwise by `sparsemap`.
        """
        return operators.tree_projection_from_marginals(targets, scores, lengths, self.projective, self.single_root)

    def sample(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Trees drawn with probability ∝ exp(score), `(num_samples, batch, n, n + 1)`; no gradient.

        From the charts of the inside algorithm or the elimination of the matrix-tree theorem, run backwards. With a seeded
        `generator`, draws repeat exactly, whatever the number of threads.
        """
        return operators.tree_sample(scores, lengths, self.projective, self.single_root, num_samples, generator)

    def top_k(self, scores: Tensor, lengths: Tensor | None = None, k: int = 1) -> TopK:
        """The k best trees of each sentence, best first (Lawler 1972), with up to k · n argmaxes; no gradient."""
        return TopK(*operators.tree_top_k(scores, lengths, self.projective, self.single_root, k))

    def enumerate(self, size: int) -> Tensor:
        """All trees over `size` words, `(count, size, size + 1)`.

        Raises:
            ValueError: more than 7 words, which have more than 262,144 trees.
        """
        return all_trees(size, self.projective, self.single_root)
