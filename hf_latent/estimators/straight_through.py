"""Straight-through estimators: the decoder sees a vertex, and the gradient is that of a smooth function of the scores."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent.estimators.estimator import Estimator, Latent, TaskLoss, no_loss, register_estimator, with_gradient_of
from hf_latent.inference.checks import check_positive
from hf_latent.structures import Categorical, Structure

# The least standard deviation that a group's scores are divided by: nearly equal ones multiply the gradient by at most ten.
SMALLEST_DEVIATION = 0.1


@register_estimator("ste_marginals")
@dataclass(frozen=True)
class STEMarginals(Estimator):
    """STE-S: MAP(s), with the gradient of Marg(s / temperature): the full Jacobian of the marginals times γ.

    Attributes:
        temperature: divides the scores of the marginals in the backward pass.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        scores, lengths = structure.check(scores, lengths)
        soft = structure.marginals(scores.double() / self.temperature, lengths)
        return Latent(with_gradient_of(soft, structure.argmax(scores, lengths)).to(scores.dtype), no_loss(scores))


@register_estimator("identity_with_projection")
@dataclass(frozen=True)
class IdentityWithProjection(Estimator):
    """MAP(s), with the gradient of the scores brought to mean 0 and standard deviation 1 (Sahoo et al. 2023).

    The choice does not change when a constant is added to all scores or a factor multiplies them. The gradient has no part in
    these two directions; in all others it is that of the identity. Each group of parts that share a constraint, such as the
    heads of a word, is centred and scaled by itself (`Structure.group_dims`). Scores whose deviation is smaller than
    `SMALLEST_DEVIATION` are divided by that.
    """

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        scores, lengths = structure.check(scores, lengths)
        mask = structure.mask(scores, lengths)
        dims = list(range(-(structure.group_dims or structure.event_dims), 0))
        exact, weights = scores.double().masked_fill(~mask, 0.0), mask.double()
        count = weights.sum(dims, keepdim=True).clamp(min=1)
        centred = (exact - exact.sum(dims, keepdim=True) / count) * weights
        variance = centred.square().sum(dims, keepdim=True) / count
        soft = centred / variance.clamp(min=SMALLEST_DEVIATION**2).sqrt()
        return Latent(with_gradient_of(soft, structure.argmax(scores, lengths)).to(scores.dtype), no_loss(scores))


@register_estimator("reinmax")
@dataclass(frozen=True)
class ReinMax(Estimator):
    """A sample, with a gradient that is right to second order (Heun's method; Liu et al. 2023). One choice among k only.

    Attributes:
        temperature: divides the scores of the softmax that the sample is mixed with. (In the paper, 1 or somewhat more.)
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        """See `Estimator`.

        Raises:
            ValueError: a structure other than `Categorical`.
        """
        if not isinstance(structure, Categorical):
            raise ValueError(
                f"Estimator 'reinmax' is defined for one choice among k (`Categorical()`), not for {structure!r}. For "
                "structures, 'perturb_and_map' or 'ste_marginals' come closest."
            )
        scores, lengths = structure.check(scores, lengths)
        exact, mask = scores.double(), structure.mask(scores, lengths)
        sample = structure.sample(exact, lengths)[0]
        probabilities = structure.marginals(exact, lengths)
        mixed = (sample + structure.marginals(exact / self.temperature, lengths)).detach() / 2
        # The softmax whose value is `mixed` and whose gradient is taken with respect to the scores as they are.
        log_mixed = mixed.clamp(min=torch.finfo(exact.dtype).tiny).log().masked_fill(~mask, -torch.inf)
        smooth = structure.marginals(log_mixed + (exact - exact.detach()).masked_fill(~mask, 0.0), lengths)
        return Latent(with_gradient_of(2 * smooth - probabilities / 2, sample).to(scores.dtype), no_loss(scores))
