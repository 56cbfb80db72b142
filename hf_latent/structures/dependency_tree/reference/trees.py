"""The algorithms of this folder behind the contract of all structures: trees of each kind, from checked scores of any dtype."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.algorithms import Algorithms
from hf_latent.inference.derivatives import differentiably
from hf_latent.inference.normalize import FORBIDDEN, normalize
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.structures.dependency_tree.reference import arborescence, eisner, matrix_tree
from hf_latent.structures.dependency_tree.reference.masking import arc_mask, word_mask


class TreeReference(Algorithms):
    """Of `DependencyTree`; every method takes the tree's own options from it. Results are in float64."""

    def argmax(self, structure: Any, scores: Tensor, lengths: Tensor, required: bool = True) -> Tensor:
        """The arcs of a highest-scoring tree, `(batch, n, n + 1)`."""
        best = _best_arcs(structure, normalized(scores, lengths)[0], lengths)
        return best if required else best * self.has_structure(structure, scores, lengths)[:, None, None]

    def has_structure(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """Which sentences have a tree, `(batch,)`: not all are forbidden."""
        weights, _ = normalized(scores, lengths)
        if not (arc_mask(lengths, scores.shape[1]) & (weights == FORBIDDEN)).any():
            return torch.ones_like(lengths, dtype=torch.bool)
        arcs = _best_arcs(structure, weights, lengths)
        forbidden = ((arcs > 0) & (weights == FORBIDDEN)).flatten(1).any(1)
        return ~forbidden & ~(structure.single_root & (arcs[:, :, 0].sum(1) > 1))

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """log Z, `(batch,)`."""
        weights, offset = normalized(scores, lengths)
        return _sums(structure).log_partition(weights, lengths, structure.single_root) + offset

    def marginals(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """The probability of each arc, `(batch, n, n + 1)`."""
        found = _sums(structure).marginals(normalized(scores, lengths)[0], lengths, structure.single_root)
        return found.clamp(0, 1)  # rounding only

    def marginals_derivative(self, structure: Any, scores: Tensor, lengths: Tensor, direction: Tensor) -> Tensor:
        """The derivative of the marginals when the scores move along `direction`: the same sweep on dual numbers."""
        direction = direction.double().masked_fill(~arc_mask(lengths, scores.shape[1]), 0.0)

        def marginals(moved: Tensor) -> Tensor:
            return _sums(structure).marginals(moved, lengths, structure.single_root)

        weights = normalized(scores, lengths)[0]
        return differentiably(lambda: torch.func.jvp(marginals, (weights,), (direction,))[1])

    def sample(self, structure: Any, scores: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """The heads of drawn trees, `(samples, batch, n)`, -1 beyond the sentence."""
        drawn = _sums(structure).sample(normalized(scores, lengths)[0], lengths, seeds, structure.single_root)
        options = structure.projective, structure.single_root
        # Where scores are so large that their differences have no digits left (1e13 and more), what is drawn may be no tree.
        valid = is_tree(drawn.flatten(0, 1), *options, lengths.repeat(len(drawn))).view(drawn.shape[:2])
        if not valid.all():
            drawn = drawn.where(valid[:, :, None], self.argmax(structure, scores, lengths).argmax(2))
        return drawn.masked_fill(~word_mask(lengths, scores.shape[1]), -1)


def _sums(structure: Any) -> ModuleType:
    return eisner if structure.projective else matrix_tree


def _best_arcs(structure: Any, weights: Tensor, lengths: Tensor) -> Tensor:
    """The arcs of a highest-scoring tree, from normalized scores (in which arcs may be forbidden)."""
    return (eisner if structure.projective else arborescence).argmax(weights, lengths, structure.single_root)


def normalized(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 scores with `FORBIDDEN` where no arc may be, and 0 for each word's best; what that adds to each sentence's."""
    return normalize(scores, arc_mask(lengths, scores.shape[1]), 1)
