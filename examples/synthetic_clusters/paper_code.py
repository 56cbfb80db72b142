"""Estimators as the paper's code has them, where that is not what its text says: to see what its figures come from.

Of the Jacobian of the softmax, p_i(δ_ij - p_j), STE-S and ST-Gumbel have the diagonal only. The score function has its sign
reversed (what led to a high loss becomes more likely), scores in place of log-probabilities, and the mean loss of the batch as
the one reward of all; the row "without a baseline" takes the moving average off that, and the row "with a baseline" does not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent import Estimator, Latent, Structure
from hf_latent.estimators import needs_task_loss, no_loss, surrogate_loss, with_gradient_of
from hf_latent.estimators.estimator import TaskLoss

KEPT = 0.95  # of the moving average, at each step


@dataclass(frozen=True)
class DiagonalSoftmax(Estimator):
    """MAP(s), or MAP(s + noise), whose gradient is p_i(1 - p_i) times that of the decoder."""

    gumbel: bool = False

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        noise = -torch.rand_like(scores).log().neg().log() if self.gumbel else 0.0  # of which some is -inf
        perturbed = scores.detach() + noise
        marginals = structure.marginals(perturbed)
        soft = marginals * (1 - marginals) * scores
        return Latent(with_gradient_of(soft, structure.argmax(perturbed)), no_loss(scores))


@dataclass(frozen=True)
class ReversedScoreFunction(Estimator):
    """A sample z, and the loss -(L - b) s·z / K with L the batch's mean loss."""

    baseline: str = "none"

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        return self.resume(structure, scores, lengths, task_loss, self.initial_state())

    def resume(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None, task_loss: TaskLoss | None, state: Tensor | None
    ) -> Latent:
        sample = structure.sample(scores)[0]
        with torch.no_grad():
            reward = needs_task_loss(self.name, task_loss)(sample).mean()
        average = torch.zeros(()) if state is None else state
        taken_off = average if self.baseline == "none" else 0.0  # the switch is the wrong way round
        loss = -(reward - taken_off) * (sample * scores).mean(1)
        return Latent(sample, surrogate_loss(loss), torch.lerp(reward, average, KEPT))

    def initial_state(self) -> Tensor:
        return torch.zeros(())


OF_THE_CODE = {
    "ste_marginals": DiagonalSoftmax,
    "perturb_and_map": lambda: DiagonalSoftmax(gumbel=True),
    "score_function": ReversedScoreFunction,
}
