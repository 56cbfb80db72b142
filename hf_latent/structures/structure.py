"""The contract of a structure: what a latent choice is, and what can be computed about it."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from hf_latent.inference import active_set
from hf_latent.inference.checks import check_finite, check_floating, check_lengths


class Structure(ABC):
    """A finite set Z of 0/1 tensors, and the polytope M = conv(Z).

    A structure is a frozen dataclass: no tensors, no state; its fields hold for every operation alike. Scores come in as
    an argument, with a leading batch dimension and the `event_dims` dimensions of one choice behind it. `lengths (batch,)`
    says how much of each row counts; all else is ignored on input and 0 on output.

    Writing one of your own takes `argmax`, `log_partition` and `enumerate`, and `check` where lengths do not
    count along dimension 1 of the scores; all other operations follow from them
    (override those for which you know something faster). Every estimator then works on it.
    """

    event_dims: ClassVar[int] = 1

    @abstractmethod
    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """MAP(s) = argmax over z in Z of s·z (paper, section 3); same shape as `scores`, no gradient."""

    @abstractmethod
    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log Σ_z exp(s·z), `(batch,)`, differentiable (twice, for the default `marginals` to be so once)."""

    @abstractmethod
    def enumerate(self, size: int) -> Tensor:
        """All of Z for one row of length `size`: `(count, *event)`, in float32. For tests and small structures."""

    def check(self, scores: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`scores` and `lengths` as the operations need them, or an error that names what is wrong.

        The default takes `lengths` as the number of valid entries of dimension 1 of `scores`.
        """
        scores = check_floating(scores, f"(batch, ...) with {self.event_dims + 1} dimensions", self.event_dims + 1)
        lengths = check_lengths(lengths, scores.shape[0], scores.shape[1], scores.device)
        check_finite(scores, self.mask(scores, lengths))
        return scores, lengths

    def mask(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True where an entry of `scores` counts; by default, where dimension 1 is below `lengths`."""
        valid = torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]
        return valid.view(*valid.shape, *[1] * (scores.dim() - 2)).expand(scores.shape)

    def marginals(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Marg(s) = E[z] under p(z) ∝ exp(s·z) (Eq. 2): the gradient of `log_partition`."""
        differentiable = scores.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            tracked = scores if differentiable else scores.detach().requires_grad_()
            total = self.log_partition(tracked, lengths).sum()
            (gradient,) = torch.autograd.grad(total, tracked, create_graph=differentiable)
        return gradient

    def sparsemap(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tolerance: float | None = None,
        max_iterations: int = active_set.MAX_ITERATIONS,
    ) -> Tensor:
        """SparseMAP(s), the Euclidean projection of s onto M (Eq. 4; Niculae et al. 2018). Differentiable once.

        By the active-set method, with one `argmax` an iteration; warns where it did not converge.

        Args:
            scores, lengths: as everywhere.
            tolerance: the duality gap to stop at, relative to the squared distance from the scores to their best vertex
                where that is below 1; by default 1e-10 for float64 and 1e-6 for all else.
            max_iterations: where to stop in any case.
        """
        scores, lengths = self.check(scores, lengths)
        mask = self.mask(scores, lengths)

        def oracle(flat: Tensor, rows: Tensor) -> Tensor:
            return self.argmax(flat.view(-1, *scores.shape[1:]), lengths[rows]).flatten(1)

        flat = scores.double().masked_fill(~mask, 0.0).flatten(1)
        tolerance = active_set.default_tolerance(scores.dtype) if tolerance is None else tolerance
        return active_set.sparsemap(flat, oracle, tolerance, max_iterations).view(scores.shape).to(scores.dtype)

    def entropy(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """-Σ_z p(z) log p(z) = log_partition - s·marginals, `(batch,)`, in nats. Differentiable."""
        exact = self.check(scores, lengths)[0].double()  # a small difference of two large numbers
        value = self.log_partition(exact, lengths) - self.score(self.marginals(exact, lengths), exact, lengths)
        return _bounded(value, below=0.0).to(torch.promote_types(scores.dtype, torch.float32))

    def log_prob(self, z: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(z) = s·z - log_partition, `(batch,)`, for `z` in Z of the shape of `scores`. Differentiable in `scores`.

        That z is in Z is not checked; for a point inside M this is the expectation of log p under it.
        """
        exact = self.check(scores, lengths)[0].double()  # a small difference of two large numbers
        value = self.score(z, exact, lengths) - self.log_partition(exact, lengths)
        return _bounded(value, above=0.0).to(torch.promote_types(scores.dtype, torch.float32))

    def score(self, z: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """s·z, `(batch,)`, over what counts of each row. Differentiable."""
        scores, lengths = self.check(scores, lengths)
        if z.shape != scores.shape:
            raise ValueError(f"`z` must have the shape of `scores`, {tuple(scores.shape)}, got {tuple(z.shape)}.")
        mask = self.mask(scores, lengths)
        exact = torch.promote_types(scores.dtype, torch.float32)
        product = (scores.to(exact) * z.to(exact)).masked_fill(~mask, 0.0)
        return product.flatten(1).sum(1)


def _bounded(value: Tensor, below: float | None = None, above: float | None = None) -> Tensor:
    """`value` without the rounding that carried it past its bound; the gradient passes unchanged."""
    return value + (value.clamp(below, above) - value).detach()
