"""One choice among k: Z is the set of one-hot vectors and M the simplex (paper, Table 1, left column)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent.inference.active_set import MAX_ITER, check_stopping
from hf_latent.inference.checks import Checked, at_least_float32, check_count, is_eager, raise_no_structure
from hf_latent.structures.structure import Structure, TopK


@dataclass(frozen=True)
class Categorical(Structure, guarded=False):
    """One of k categories. Scores are `(batch, k)`; `lengths (batch,)`, where given, is the number of valid categories.

    A score of -inf forbids the category.
    A row with no valid category is all 0, with log-partition 0: the one empty choice.

    >>> Categorical().marginals(torch.tensor([[1.0, 1.0, 5.0]]), torch.tensor([2]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """

    def _masked(self, checked: Checked) -> tuple[Tensor, Tensor, Tensor]:
        """Scores in float32 or better, -inf where there is no category, the mask, and the rows with nothing to choose.

        Those rows are all 0, so that nothing becomes NaN.
        """
        mask, empty = checked.allowed, (checked.lengths == 0)[:, None]
        exact = checked.scores.to(at_least_float32(checked.scores.dtype))
        if mask is not checked.positions:
            missing = ~(mask.any(1) | empty[:, 0])
            if is_eager() and missing.any():
                raise_no_structure(int(missing.nonzero()[0]))
        return exact.masked_fill(~mask & ~empty, -torch.inf).masked_fill(empty, 0.0), mask, empty

    def num_parts(self, lengths: Tensor) -> Tensor:
        """One, where there is a category."""
        return lengths.clamp(max=1)

    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """e_k for the (first) highest score, `(batch, k)`; no gradient."""
        masked, mask, _ = self._masked(self.checked(scores, lengths))
        if not masked.shape[1]:
            return scores.detach().clone()
        best = torch.nn.functional.one_hot(masked.argmax(1), masked.shape[1])
        return (best * mask).to(scores.dtype)

    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """logsumexp of the valid scores, `(batch,)`, in float32 or better."""
        return self._log_partition(self.checked(scores, lengths))

    def _log_partition(self, checked: Checked) -> Tensor:
        masked, _, empty = self._masked(checked)
        return masked.logsumexp(1).masked_fill(empty[:, 0], 0.0)

    def marginals(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """softmax, `(batch, k)`."""
        return self._marginals(self.checked(scores, lengths))

    def _marginals(self, checked: Checked) -> Tensor:
        masked, mask, _ = self._masked(checked)
        return masked.softmax(1).masked_fill(~mask, 0.0).to(checked.scores.dtype)

    def sparsemap(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tol: float | None = None,
        max_iter: int = MAX_ITER,
        start: Tensor | None = None,
    ) -> Tensor:
        """sparsemax (Martins and Astudillo 2016), `(batch, k)`; exact, whatever the tolerance."""
        check_stopping(tol, max_iter, scores)
        checked = self.checked(scores, lengths)
        self._check_start(start, checked)
        masked, mask, _ = self._masked(checked)
        if not masked.numel():
            return masked.to(scores.dtype)
        return _sparsemax(masked).masked_fill(~mask, 0.0).to(scores.dtype)

    def sample(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Unit vectors drawn from the softmax, `(num_samples, batch, k)`; no gradient."""
        check_count("num_samples", num_samples)
        masked, mask, empty = self._masked(self.checked(scores.detach(), lengths))
        if not masked.numel():
            return scores.detach().new_zeros(num_samples, *scores.shape)
        chances = masked.double().softmax(1).masked_fill(~mask & ~empty, 0.0)
        source = chances.to(generator.device if generator is not None else "cpu")
        drawn = torch.multinomial(source, num_samples, replacement=True, generator=generator).T.to(scores.device)
        return (torch.nn.functional.one_hot(drawn, scores.shape[1]) * mask).to(scores.dtype)

    def top_k(self, scores: Tensor, lengths: Tensor | None = None, k: int = 1) -> TopK:
        """The unit vectors of the k highest scores, `(batch, k, categories)`, best first; no gradient."""
        check_count("k", k)
        masked, mask, empty = self._masked(self.checked(scores.detach(), lengths))
        count = min(k, masked.shape[1])
        if not masked.shape[1]:
            return super().top_k(scores, lengths, k)
        best = masked.topk(count, dim=1)
        chosen = torch.nn.functional.one_hot(best.indices, masked.shape[1]) * mask[:, None, :]
        exists = mask.gather(1, best.indices)
        values = best.values.masked_fill(~exists, -torch.inf)
        missing = k - count
        result = TopK(
            torch.nn.functional.pad(chosen.to(scores.dtype), (0, 0, 0, missing)),
            torch.nn.functional.pad(values, (0, missing), value=-torch.inf),
        )
        result.scores[:, :1].masked_fill_(empty, 0.0)  # the one empty choice
        return result

    def enumerate(self, size: int) -> Tensor:
        """The `size` unit vectors, `(size, size)`; for size 0, the one empty choice."""
        return torch.eye(size) if size else torch.zeros(1, 0)


def _sparsemax(scores: Tensor) -> Tensor:
    """The projection of each row onto the simplex: above a threshold, how far; its gradient, that of the same threshold."""
    # It does not move when all scores do, and never gives weight to a score that is 1 below the best: so the range can be cut
    # to where float32 sums are exact.
    shifted = (scores - scores.amax(1, keepdim=True).detach()).clamp(min=-2.0)
    ordered = shifted.detach().sort(1, descending=True).values
    places = torch.arange(1, ordered.shape[1] + 1, device=ordered.device)
    thresholds = (ordered.cumsum(1) - 1) / places  # if as many have weight
    last = (places * ordered > ordered.cumsum(1) - 1).sum(1, keepdim=True) - 1
    threshold = thresholds.gather(1, last)
    support = shifted.detach() > threshold
    mean = shifted.masked_fill(~support, 0.0).sum(1, keepdim=True) / (last + 1)
    # The mean has the threshold's gradient.
    return (shifted - (threshold + (mean - mean.detach()))).clamp(min=0.0).masked_fill(~support, 0.0)
