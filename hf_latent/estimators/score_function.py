"""The score function estimator (REINFORCE; Williams 1992): unbiased, from the loss alone, with no gradient of the decoder."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hf_latent.estimators.estimator import (
    Estimator,
    Latent,
    TaskLoss,
    check_choice,
    register_estimator,
)
from hf_latent.estimators.task_losses import losses_of, needs_task_loss
from hf_latent.inference.checks import check_count, is_eager
from hf_latent.structures import Structure

BASELINES = ("none", "moving_average", "self_critical", "leave_one_out")


@register_estimator("score_function")
@dataclass(frozen=True)
class ScoreFunction(Estimator):
    """The decoder sees a sample z; the scores get the gradient (L(z) - b) ∇ log p(z), each example with its own loss.

    Attributes:
        baseline: b, which lowers the variance and not the mean: "none"; "moving_average" of the losses of past batches;
            "self_critical", the loss of MAP(s) (Rennie et al. 2017); "leave_one_out", the mean loss of the other samples
            (Kool et al. 2019).
        num_samples: over which the gradient is averaged, each a pass through the decoder. The decoder itself learns from the
            first.
        decay: of the moving average. Until the first batch it is NaN, for which b is 0.
    """

    baseline: str = "moving_average"
    num_samples: int = 1
    decay: float = 0.99
    _average: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

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
        """See `Estimator`.

        Raises:
            ValueError: no `task_loss`, or one that does not return one loss for each example.
        """
        if self.baseline == "moving_average" and not self._average:
            self._average.append(torch.full((), torch.nan, device=scores.device))
        return self.resume(structure, scores, lengths, task_loss, self._average[0] if self._average else None)

    def resume(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None, task_loss: TaskLoss | None, state: Tensor | None
    ) -> Latent:
        """A call that goes on from the moving average `state`, which is updated in place."""
        task_loss = needs_task_loss(self.name, task_loss)
        scores, lengths = structure.check(scores, lengths)
        scores = scores.view_as(scores)  # not the caller's own tensor, which is not to keep a hook
        samples = structure.sample(scores, lengths, self.num_samples)
        losses = torch.stack([losses_of(task_loss, sample) for sample in samples])
        advantages = losses - self._baseline(structure, scores, lengths, task_loss, losses, state)
        log_probs = torch.stack([structure.log_prob(sample, scores, lengths) for sample in samples])
        loss = (advantages.to(log_probs) * log_probs).mean(0)
        return Latent(samples[0], loss - loss.detach())

    def _baseline(
        self,
        structure: Structure,
        scores: Tensor,
        lengths: Tensor,
        task_loss: TaskLoss,
        losses: Tensor,
        state: Tensor | None,
    ) -> Tensor:
        if self.baseline == "self_critical":
            return losses_of(task_loss, structure.argmax(scores, lengths))
        if self.baseline == "leave_one_out":
            return (losses.sum(0) - losses) / (len(losses) - 1)
        if state is None or not losses.numel():
            return torch.zeros_like(losses)
        # What came before this batch, so that no example's own loss is in its baseline.
        before = state.to(losses, copy=True)
        finite = losses.detach().isfinite()
        mean = losses.detach().masked_fill(~finite, 0.0).sum() / finite.sum()  # NaN if none is
        after = torch.where(before.isnan(), mean, torch.lerp(mean, before, self.decay))
        after = torch.where(mean.isnan(), before, after)
        if scores.requires_grad and is_eager():
            # Within the backward pass, and when all of it is done that may call this once more (`torch.utils.checkpoint`),
            # which is to find the average as it was.
            def move(_: Tensor) -> None:  # what a hook returns would be taken for the gradient
                state.copy_(after)

            scores.register_hook(move)
        elif torch.is_grad_enabled():  # without, it is such a first call, or nothing is learned
            state.copy_(after)
        return before.nan_to_num(0.0).expand_as(losses)

    def initial_state(self) -> Tensor | None:
        """The moving average before the first batch."""
        return torch.full((), torch.nan) if self.baseline == "moving_average" else None
