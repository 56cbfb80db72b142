"""One choice among k: Z is the set of one-hot vectors and M the simplex (paper, Table 1, left column)."""

from dataclasses import dataclass

import entmax
import torch
from torch import Tensor

from hf_latent.inference.active_set import MAX_ITERATIONS
from hf_latent.structures.structure import Structure


@dataclass(frozen=True)
class Categorical(Structure):
    """One of k categories. Scores are `(batch, k)`; `lengths (batch,)`, where given, is the number of valid categories.

    A row with no valid category is all 0, with log-partition 0: the one empty choice.

    >>> Categorical().marginals(torch.tensor([[1.0, 1.0, 5.0]]), torch.tensor([2]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """

    def _masked(self, scores: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Scores in float32 or better that are finite everywhere, the mask, and the rows with nothing to choose."""
        scores, lengths = self.check(scores, lengths)
        mask = self.mask(scores, lengths)
        exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
        # Far below all that counts; not infinite, so that a row of nothing but padding has no NaN.
        return exact.masked_fill(~mask, torch.finfo(exact.dtype).min / 4), mask, (lengths == 0)[:, None]

    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """e_k for the (first) highest score, `(batch, k)`; no gradient."""
        masked, mask, _ = self._masked(scores, lengths)
        if not masked.shape[1]:
            return scores.detach().clone()
        best = torch.nn.functional.one_hot(masked.argmax(1), masked.shape[1])
        return (best * mask).to(scores.dtype)

    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """logsumexp of the valid scores, `(batch,)`, in float32 or better."""
        masked, _, empty = self._masked(scores, lengths)
        return masked.logsumexp(1).masked_fill(empty[:, 0], 0.0)

    def marginals(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """softmax, `(batch, k)`."""
        masked, mask, _ = self._masked(scores, lengths)
        return masked.softmax(1).masked_fill(~mask, 0.0).to(scores.dtype)

    def sparsemap(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tolerance: float | None = None,
        max_iterations: int = MAX_ITERATIONS,
    ) -> Tensor:
        """sparsemax (Martins and Astudillo 2016), `(batch, k)`, by `entmax`; exact, whatever the tolerance."""
        masked, mask, _ = self._masked(scores, lengths)
        if not masked.numel():
            return masked.to(scores.dtype)
        # A projection onto the simplex does not move when all scores do, and never gives weight to a score that is 1 below
        # the best: so the range can be cut to where float32 sums are exact.
        shifted = (masked - masked.amax(1, keepdim=True).detach()).clamp(min=-2.0)
        return entmax.sparsemax(shifted, dim=1).masked_fill(~mask, 0.0).to(scores.dtype)

    def enumerate(self, size: int) -> Tensor:
        """The `size` unit vectors, `(size, size)`."""
        return torch.eye(size)
