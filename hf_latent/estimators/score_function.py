"""The score function estimator (REINFORCE; Williams 1992): unbiased, from the loss alone, with no gradient of the decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent.estimators.estimator import Estimator, Latent, TaskLoss, register_estimator, surrogate_loss
from hf_latent.estimators.task_losses import losses_of, needs_task_loss
from hf_latent.inference.checks import check_choice, check_count
from hf_latent.structures import Structure

BASELINES = ("none", "moving_average", "self_critical", "leave_one_out")


@register_estimator("score_function")
@dataclass(frozen=True)
class ScoreFunction(Estimator):
    """The decoder sees a sample z; the scores get the gradient (L(z) - b) ∇ log p(z), each example with its own loss.

    Attributes:
        baseline: b, which lowers the variance and keeps the mean: "none"; "moving_average" of the losses of past batches;
            "self_critical", the loss of MAP(s) (Rennie et al. 2017); "leave_one_out", the mean loss of the other samples
            (Kool et al. 2019).
        num_samples: over which the gradient is averaged, each a pass through the decoder. The decoder itself learns from the
            first.
        decay: of the moving average.

    The moving average is the estimator's state: `resume` takes that of the batches before and returns the next one as
    `Latent.state`, and `LatentTreeLayer` keeps it among its weights. Before the first batch it is NaN, for which b is 0. A
    plain call has no memory: it begins with NaN every time.
    """

    baseline: str = "moving_average"
    num_samples: int = 1
    decay: float = 0.99

    def __post_init__(self) -> None:
        check_choice("baseline", self.baseline, BASELINES)
        check_count("num_samples", self.num_samples)
        if not 0 <= self.decay < 1:
            raise ValueError(f"`decay` must lie between 0 and 1 (below 1), got {self.decay!r}.")
        if self.baseline == "leave_one_out" and self.num_samples < 2:
            raise ValueError('`num_samples` must be at least 2 for `baseline="leave_one_out"`, which compares samples.')

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        """See `Estimator`. With `baseline="moving_average"`, b is 0: use `resume`, and keep its state.

        Raises:
            ValueError: no `task_loss`, or one that does not return one loss for each example.
        """
        return self.resume(structure, scores, lengths, task_loss, self.initial_state())

    def resume(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None, task_loss: TaskLoss | None, state: Tensor | None
    ) -> Latent:
        """A call that goes on from the moving average `state`; `Latent.state` is the average with this batch in it.

        Raises:
            ValueError: no `task_loss`, or one that does not return one loss for each example.
        """
        task_loss = needs_task_loss(self.name, task_loss)
        scores, lengths = structure.check(scores, lengths)
        samples = structure.sample(scores, lengths, self.num_samples)
        losses = torch.stack([losses_of(task_loss, sample) for sample in samples])
        advantages = losses - self._baseline(structure, scores, lengths, task_loss, losses, state)
        log_probs = structure.log_prob(samples, scores, lengths)
        loss = (advantages.to(log_probs) * log_probs).mean(0)
        return Latent(samples[0], surrogate_loss(loss), self._next_state(state, losses))

    def initial_state(self) -> Tensor | None:
        """The moving average before the first batch: NaN."""
        return torch.full((), torch.nan) if self.baseline == "moving_average" else None

    def _baseline(
        self,
        structure: Structure,
        scores: Tensor,
        lengths: Tensor,
        task_loss: TaskLoss,
        losses: Tensor,
        state: Tensor | None,
    ) -> Tensor:
        """b, of the shape of `losses (num_samples, batch)` or `(batch,)`. No example's own loss is in its baseline."""
        if self.baseline == "self_critical":
            return losses_of(task_loss, structure.argmax(scores, lengths))
        if self.baseline == "leave_one_out":
            return (losses.sum(0) - losses) / (len(losses) - 1)
        if self.baseline == "none" or state is None:
            return torch.zeros_like(losses)
        return state.to(losses).nan_to_num(0.0).expand_as(losses)

    def _next_state(self, state: Tensor | None, losses: Tensor) -> Tensor | None:
        """The moving average with the finite ones of `losses` in it; `state` itself where there are none."""
        if self.baseline != "moving_average" or state is None or not losses.numel():
            return state
        before, losses = state.to(losses), losses.detach()
        finite = losses.isfinite()
        mean = losses.masked_fill(~finite, 0.0).sum() / finite.sum()  # NaN if none is
        after = torch.where(before.isnan(), mean, torch.lerp(mean, before, self.decay))
        return torch.where(mean.isnan(), before, after).to(state)
