"""How the choice changes when the scores move against the gradient: differences of two argmaxes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_latent.estimators.estimator import Estimator, Latent, TaskLoss, register_estimator, surrogate_loss
from hf_latent.estimators.perturbations import NOISES, draw_noise
from hf_latent.estimators.task_losses import needs_task_loss, task_loss_gradient
from hf_latent.inference.checks import check_choice, check_positive
from hf_latent.structures import Structure


@register_estimator("blackbox", noise="none")
@register_estimator("imle")
@dataclass(frozen=True)
class FiniteDifference(Estimator):
    """The decoder sees z = MAP(s + noise); the scores get (z - MAP(s + noise - λγ)) / λ, γ being the gradient at z.

    Without noise, this is the differentiation of blackbox solvers (Vlastelica et al. 2020); with it, implicit maximum
    likelihood estimation (Niepert et al. 2021). At evaluation, MAP(s).

    Attributes:
        noise: "gumbel", "sum_of_gamma", or "none".
        step_size: λ, how far the scores move: so far that the choice changes now and then.
        noise_scale: the factor of the noise. (Formerly `temperature`, which divides scores in all other estimators.)
    """

    noise: str = "sum_of_gamma"
    step_size: float = 10.0
    noise_scale: float = 1.0

    former_options: ClassVar[Mapping[str, str]] = {"temperature": "noise_scale"}

    def __post_init__(self) -> None:
        check_positive("step_size", self.step_size)
        check_positive("noise_scale", self.noise_scale)
        check_choice("noise", self.noise, (*NOISES, "none"))

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        """See `Estimator`.

        Raises:
            ValueError: no `task_loss`, or one that does not return one loss for each example.
        """
        task_loss = needs_task_loss(self.name, task_loss)
        scores, lengths = structure.check(scores, lengths)
        moved = scores.detach().double()
        if self.noise != "none":
            moved = moved + self.noise_scale * draw_noise(self.noise, structure, scores, lengths)
        value = structure.argmax(moved, lengths)
        gradient = task_loss_gradient(lambda guess: task_loss(guess.to(scores.dtype)), value)
        target = structure.argmax(moved - self.step_size * gradient, lengths)
        loss = structure.score((value - target) / self.step_size, scores, lengths)
        return Latent(value.to(scores.dtype), surrogate_loss(loss))
