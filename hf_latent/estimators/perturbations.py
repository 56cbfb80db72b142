"""Perturb the scores and choose: a sample is the argmax of scores plus noise, and so has a gradient by the scores.

The argmax of scores with Gumbel noise on each part is a sample: exactly for one choice among k, roughly for structures
(Papandreou and Yuille 2011). A sum of Gamma variables makes the total over a structure of k parts Gumbel instead (Niepert et
al. 2021). Noise is drawn in float64, whatever the dtype of the scores.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent.estimators.estimator import Estimator, Latent, TaskLoss, no_loss, register_estimator, with_gradient_of
from hf_latent.inference.checks import check_choice, check_positive
from hf_latent.structures import Structure

NOISES = ("gumbel", "sum_of_gamma")
# How many terms of the series a sum of Gamma variables has; more change it by less than 0.1.
GAMMA_TERMS = 10


def draw_noise(distribution: str, structure: Structure, scores: Tensor, lengths: Tensor) -> Tensor:
    """Noise in float64, of the shape of the scores, 0 where no part can be; no gradient.

    `distribution` is one of `NOISES`; `scores` and `lengths` are what `structure.check` returned.
    """
    scores = scores.detach()
    if distribution == "gumbel":
        noise = -torch.empty_like(scores, dtype=torch.float64).exponential_().clamp(min=1e-300).log()
    else:
        # The parts of a structure: one for one choice among k, n heads for n words.
        parts = structure.num_parts(lengths).double().clamp(min=1)
        parts = parts.view(*parts.shape, *[1] * (scores.dim() - parts.dim())).expand(scores.shape)
        terms = torch.arange(1, GAMMA_TERMS + 1, dtype=torch.float64, device=scores.device)
        gammas = torch._standard_gamma((1 / parts)[..., None].expand(*scores.shape, GAMMA_TERMS).contiguous())
        noise = (gammas / terms).sum(-1) - math.log(GAMMA_TERMS) / parts
    return noise.masked_fill(~structure.mask(scores, lengths), 0.0)


@dataclass(frozen=True)
class Perturbation(Estimator):
    """The options of both estimators.

    Attributes:
        temperature: divides the scores, with their noise, where they are relaxed. A low one gives nearly the gradient of the
            choice, with high variance; a high one gives a smooth gradient.
        noise: "gumbel" or "sum_of_gamma".
        noise_scale: the factor of the noise. Once the right structures have been found, the decoder learns faster with less.
    """

    temperature: float = 1.0
    noise: str = "gumbel"
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_positive("noise_scale", self.noise_scale)
        check_choice("noise", self.noise, NOISES)

    def _perturbed(self, structure: Structure, scores: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """s + noise_scale · noise in float64, and the lengths, checked."""
        scores, lengths = structure.check(scores, lengths)
        return scores.double() + self.noise_scale * draw_noise(self.noise, structure, scores, lengths), lengths


@register_estimator("perturb_and_map")
@dataclass(frozen=True)
class PerturbAndMAP(Perturbation):
    """ST-Gumbel (Jang et al. 2017) and Perturb-and-MAP (Corro and Titov 2019): MAP(s + noise), with the gradient of
    Marg((s + noise) / temperature). At evaluation, MAP(s)."""

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        perturbed, lengths = self._perturbed(structure, scores, lengths)
        soft = structure.marginals(perturbed / self.temperature, lengths)
        value = with_gradient_of(soft, structure.argmax(perturbed, lengths))
        return Latent(value.to(scores.dtype), no_loss(scores))


@register_estimator("perturbed_marginals")
@dataclass(frozen=True)
class PerturbedMarginals(Perturbation):
    """The Gumbel-softmax (Maddison et al. 2017; Jang et al. 2017) of a structure: the decoder sees
    Marg((s + noise) / temperature), with its exact gradient. At evaluation, Marg(s / temperature)."""

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        perturbed, lengths = self._perturbed(structure, scores, lengths)
        return Latent(structure.marginals(perturbed / self.temperature, lengths).to(scores.dtype), no_loss(scores))

    def evaluate(self, structure: Structure, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        checked, lengths = structure.check(scores, lengths)
        return structure.marginals(checked.double() / self.temperature, lengths).to(scores.dtype)
