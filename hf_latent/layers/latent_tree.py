"""The drop-in layer: words in, a latent tree out."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hf_latent.estimators import DEFAULT_ESTIMATOR, Estimator, Latent, TaskLoss, get_estimator
from hf_latent.inference.checks import is_eager
from hf_latent.layers.arc_scorers import ARC_SCORERS
from hf_latent.structures import DependencyTree, Independent, Structure


class LatentTree(NamedTuple):
    """What `LatentTreeLayer` returns.

    Attributes:
        arcs: `(batch, n, n + 1)`, for the decoder: row i is a distribution over the heads of word i (column 0 is ROOT).
        scores: `(batch, n, n + 1)`, before the choice.
        loss: `(batch,)`, to be added to each example's loss in training; its value is 0, its gradient trains the scorer.
    """

    arcs: Tensor
    scores: Tensor
    loss: Tensor


class LatentTreeLayer(nn.Module):
    """A latent dependency tree over word vectors, learned from the loss of whatever comes after it.

    ```python
    self.tree, self.averaging = LatentTreeLayer(64, estimator="spigot_eg"), HeadAveraging(64)
    ...
    decode = lambda arcs: self.output(self.averaging(words, arcs).mean(1))
    tree = self.tree(words, lengths, lambda arcs: cross_entropy(decode(arcs), labels, reduction="none"))
    loss = cross_entropy(decode(tree.arcs), labels) + tree.loss.mean()
    ```

    Args:
        hidden_size: the size of a word vector.
        arc_scorer: "biaffine", "mlp", or a module from `(batch, n, hidden_size)` to `(batch, n, n + 1)`.
        structure: which trees there are; by default, projective ones with any number of roots.
        estimator: how the gradient gets through the choice: a name that `list_estimators()` knows, or an `Estimator`.
        argmax_at_evaluation: in evaluation mode, give the best tree also where training relaxes it.
        arc_size, dropout: of the scorers that are chosen by name.
    """

    estimator_state: Tensor | None

    def __init__(
        self,
        hidden_size: int,
        arc_scorer: str | nn.Module = "biaffine",
        structure: DependencyTree | None = None,
        estimator: str | Estimator = DEFAULT_ESTIMATOR,
        argmax_at_evaluation: bool = False,
        arc_size: int = 100,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(arc_scorer, str):
            if arc_scorer not in ARC_SCORERS:
                raise ValueError(f"Unknown `arc_scorer` {arc_scorer!r}. The known ones are: {', '.join(ARC_SCORERS)}.")
            arc_scorer = ARC_SCORERS[arc_scorer](hidden_size, arc_size, dropout)
        if structure is not None and not isinstance(structure, DependencyTree):
            raise TypeError(f"`structure` must be a DependencyTree, got {structure!r}.")
        if not isinstance(estimator, str | Estimator):
            raise TypeError(f"`estimator` must be a name that `list_estimators()` knows, or an Estimator, got {estimator!r}.")
        self.scorer = arc_scorer
        self.structure = DependencyTree() if structure is None else structure
        self.estimator = get_estimator(estimator) if isinstance(estimator, str) else estimator
        self.argmax_at_evaluation = argmax_at_evaluation
        # The state that the estimator returned last, saved with the weights: an interrupted training goes on exactly.
        self.register_buffer("estimator_state", self.estimator.initial_state())

    def forward(
        self, words: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None, estimate: bool = True
    ) -> LatentTree:
        """
        Args:
            words: `(batch, n, hidden_size)`; or `(batch, sentences, n, hidden_size)` for several sentences that share one
                loss, each with a tree of its own.
            lengths: `(batch,)` or `(batch, sentences)`, the number of words of each sentence; by default n.
            task_loss: from arcs to the loss of each example, `(batch,)`; see `Estimator`. Not used in evaluation mode.
            estimate: False to choose as in evaluation mode, where nothing is to be learned through the choice.

        Returns: arcs and scores `(batch, n, n + 1)` or `(batch, sentences, n, n + 1)`, and a loss `(batch,)`.
        """
        if words.dim() == 4:
            structure: Structure = Independent(self.structure)
            scores = self.scorer(words.flatten(0, 1)).unflatten(0, words.shape[:2])
        else:
            structure, scores = self.structure, self.scorer(words)
        if self.training and estimate:
            latent = self._estimate(structure, scores, lengths, task_loss)
            return LatentTree(latent.value, scores, latent.loss)
        evaluate = structure.argmax if self.argmax_at_evaluation else partial(self.estimator.evaluate, structure)
        return LatentTree(evaluate(scores, lengths), scores, scores.new_zeros(scores.shape[0]))

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
