"""How the choice changes when the scores move against the gradient: differences of two argmaxes."""

from dataclasses import dataclass

from torch import Tensor

from hf_latent.estimators.estimator import (
    Estimator,
    Latent,
    TaskLoss,
    check_choice,
    check_positive,
    register_estimator,
)
from hf_latent.estimators.perturbations import NOISES, draw_noise
from hf_latent.estimators.task_losses import gradient_of, needs_task_loss
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
        temperature: what the noise is multiplied with.
    """

    noise: str = "sum_of_gamma"
    step_size: float = 10.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("step_size", self.step_size)
        check_positive("temperature", self.temperature)
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
            moved = moved + self.temperature * draw_noise(self.noise, structure, scores, lengths)
        value = structure.argmax(moved, lengths)
        gradient = gradient_of(lambda guess: task_loss(guess.to(scores.dtype)), value)
        target = structure.argmax(moved - self.step_size * gradient, lengths)
        loss = structure.score((value - target) / self.step_size, scores, lengths)
        return Latent(value.to(scores.dtype), loss - loss.detach())
