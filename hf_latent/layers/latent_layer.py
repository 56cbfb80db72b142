"""A latent choice as a module: scores in, what the decoder sees out."""

from functools import partial

import torch
from torch import Tensor, nn

from hf_latent.estimators import DEFAULT_ESTIMATOR, Estimator, Latent, TaskLoss, get_estimator
from hf_latent.estimators.estimator import surrogate_loss
from hf_latent.inference.checks import is_eager
from hf_latent.structures import Structure


class LatentLayer(nn.Module):
    """A choice from any structure, learned from the loss of whatever comes after it.

    ```python
    self.choice = LatentLayer(Categorical(), estimator="spigot_ce")
    ...
    decode = lambda choice: self.output(choice @ self.classifiers)
    latent = self.choice(scores, None, lambda choice: cross_entropy(decode(choice), labels, reduction="none"))
    loss = cross_entropy(decode(latent.value), labels) + latent.loss.mean()
    ```

    Callbacks of the Trainer find the layer, and change `estimator` and `entropy_bonus` in the course of the training
    (`ScheduleCallback`).

    Args:
        structure: what is chosen from.
        estimator: how the gradient gets through the choice: a name that `list_estimators()` knows, or an `Estimator`.
        argmax_at_evaluation: in evaluation mode, give the best structure also where training relaxes it.

    Attributes:
        entropy_bonus: how much of the entropy of the distribution over structures, in nats for each part that a structure
            has (an arc for each word), is taken from the loss. With none, a choice that pays at first is soon the only one,
            and nothing is learned of the others.
    """

    structure: Structure
    estimator_state: Tensor | None

    def __init__(
        self, structure: Structure, estimator: str | Estimator = DEFAULT_ESTIMATOR, argmax_at_evaluation: bool = False
    ) -> None:
        super().__init__()
        if not isinstance(structure, Structure):
            raise TypeError(f"`structure` must be a Structure, such as DependencyTree() or Categorical(), got {structure!r}.")
        if not isinstance(estimator, str | Estimator):
            raise TypeError(f"`estimator` must be a name that `list_estimators()` knows, or an Estimator, got {estimator!r}.")
        self.structure = structure
        self.estimator = get_estimator(estimator) if isinstance(estimator, str) else estimator
        self.argmax_at_evaluation = argmax_at_evaluation
        self.entropy_bonus = 0.0
        # The state that the estimator returned last, saved with the weights: an interrupted training goes on exactly.
        self.register_buffer("estimator_state", self.estimator.initial_state())

    def forward(
        self, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None, estimate: bool = True
    ) -> Latent:
        """
        Args:
            scores: `(batch, *event)`, as the structure takes them.
            lengths: `(batch,)`, how much of each row counts; by default all.
            task_loss: from a value in place of the choice to the loss of each example, `(batch,)`; see `Estimator`. Not used
                in evaluation mode.
            estimate: False to choose as in evaluation mode, where nothing is to be learned through the choice.

        Returns: what the decoder sees, of the shape of `scores`, and a loss `(batch,)`, to be added to each example's loss in
            training; its value is 0, its gradient trains whatever made the scores.
        """
        return self._choose(self.structure, scores, lengths, task_loss, estimate)

    def _choose(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None, task_loss: TaskLoss | None, estimate: bool
    ) -> Latent:
        """`forward` with a structure that stands for several choices of this layer's."""
        if not (self.training and estimate):
            evaluate = structure.argmax if self.argmax_at_evaluation else partial(self.estimator.evaluate, structure)
            return Latent(evaluate(scores, lengths), scores.new_zeros(scores.shape[0]))
        latent = self._estimate(structure, scores, lengths, task_loss)
        if not self.entropy_bonus:
            return latent
        bonus = self.entropy_bonus * entropy_per_part(structure, scores, lengths)
        return latent._replace(loss=latent.loss - surrogate_loss(bonus))

    def _estimate(self, structure: Structure, scores: Tensor, lengths: Tensor | None, task_loss: TaskLoss | None) -> Latent:
        """A call of the estimator, whose next state becomes `estimator_state`, once for each step of training.

        Where a gradient will come, the state changes when it has arrived at the scores: by then, nothing is left that calls
        the layer again with the same words (`torch.utils.checkpoint`), which has to find the state as it was.
        """
        state = self.estimator_state
        if state is None:
            return self.estimator(structure, scores, lengths, task_loss)
        waits = scores.requires_grad and is_eager()
        scores = scores.view_as(scores) if waits else scores  # the hook is not for gradients that come by another way
        latent = self.estimator.resume(structure, scores, lengths, task_loss, state)
        following = latent.state
        assert following is not None, f"{self.estimator} has an initial state, and returned none."
        if waits:

            def keep(_: Tensor) -> None:  # what a hook returns would be taken for the gradient
                state.copy_(following)

            scores.register_hook(keep)
        elif torch.is_grad_enabled():  # without, this is the first of two calls, or nothing is learned
            state.copy_(following)
        return latent

    def extra_repr(self) -> str:
        return f"structure={self.structure}, estimator={self.estimator}"


def entropy_per_part(structure: Structure, scores: Tensor, lengths: Tensor | None) -> Tensor:
    """The entropy of p(z) ∝ exp(s·z) for each part that a structure has, `(batch,)`, in nats: 0 where all is decided.

    A row without parts has an entropy of 0.
    """
    entropy = structure.entropy(scores, lengths)
    lengths = structure.check(scores)[1] if lengths is None else lengths
    return entropy / structure.num_parts(lengths).view(len(entropy), -1).sum(1).clamp(min=1)
