"""The drop-in layer: words in, a latent tree out."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hf_latent.estimators import DEFAULT_ESTIMATOR, Estimator, TaskLoss
from hf_latent.layers.arc_scorers import ARC_SCORERS
from hf_latent.layers.latent_layer import LatentLayer
from hf_latent.structures import DependencyTree, Independent, Structure


class LatentTree(NamedTuple):
    """What `LatentTreeLayer` returns.

    Attributes:
        arcs: `(batch, n, n + 1)`, for the decoder: row i is a distribution over the heads of word i (column 0 is ROOT). None
            where nothing was to be chosen.
        scores: `(batch, n, n + 1)`, before the choice.
        loss: `(batch,)`, to be added to each example's loss in training; its value is 0, its gradient trains the scorer.
    """

    arcs: Tensor
    scores: Tensor
    loss: Tensor


class LatentTreeLayer(LatentLayer):
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
        arc_scorer: a name of `ARC_SCORERS`, or a module from `(batch, n, hidden_size)` to `(batch, n, n + 1)`.
        structure: which trees there are; by default, projective ones with any number of roots.
        estimator, argmax_at_evaluation: as a `LatentLayer` takes them.
        arc_size, dropout: of the scorers that are chosen by name.
        distance_penalty: so much is taken from the score of an arc between words, times the logarithm of their distance: the
            weight of an arc falls as 1 / distance ^ `distance_penalty`.

    Raises:
        TypeError: a `structure` that is no DependencyTree.
        ValueError: an unknown `arc_scorer`; a `distance_penalty` that is not a finite number of at least 0.
    """

    structure: DependencyTree

    def __init__(
        self,
        hidden_size: int,
        arc_scorer: str | nn.Module = "biaffine",
        structure: DependencyTree | None = None,
        estimator: str | Estimator = DEFAULT_ESTIMATOR,
        argmax_at_evaluation: bool = False,
        arc_size: int = 100,
        dropout: float = 0.0,
        distance_penalty: float = 0.0,
    ) -> None:
        if structure is not None and not isinstance(structure, DependencyTree):
            raise TypeError(f"`structure` must be a DependencyTree, got {structure!r}.")
        super().__init__(DependencyTree() if structure is None else structure, estimator, argmax_at_evaluation)
        if isinstance(arc_scorer, str):
            if arc_scorer not in ARC_SCORERS:
                raise ValueError(f"Unknown `arc_scorer` {arc_scorer!r}. The known ones are: {', '.join(ARC_SCORERS)}.")
            arc_scorer = ARC_SCORERS[arc_scorer](hidden_size, arc_size, dropout)
        if not 0 <= distance_penalty < float("inf"):
            raise ValueError(f"`distance_penalty` must be a finite number of at least 0, got {distance_penalty!r}.")
        self.scorer = arc_scorer
        self.distance_penalty = distance_penalty

    def forward(  # type: ignore[override]
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        task_loss: TaskLoss | None = None,
        estimate: bool = True,
        choose: bool = True,
    ) -> LatentTree:
        """
        Args:
            words: `(batch, n, hidden_size)`; or `(batch, sentences, n, hidden_size)` for several sentences that share one
                loss, each with a tree of its own.
            lengths: `(batch,)` or `(batch, sentences)`, the number of words of each sentence; by default n.
            task_loss: from arcs to the loss of each example, `(batch,)`; see `Estimator`. Not used in evaluation mode.
            estimate: False to choose as in evaluation mode, where nothing is to be learned through the choice.
            choose: False to score the arcs and no more.

        Returns: arcs and scores `(batch, n, n + 1)` or `(batch, sentences, n, n + 1)`, and a loss `(batch,)`.
        """
        if words.dim() == 4:
            structure: Structure = Independent(self.structure)
            scores = self._scores(words.flatten(0, 1)).unflatten(0, words.shape[:2])
        else:
            structure, scores = self.structure, self._scores(words)
        if not choose:
            return LatentTree(None, scores, scores.new_zeros(scores.shape[0]))  # type: ignore[arg-type]
        latent = self._choose(structure, scores, lengths, task_loss, estimate)
        return LatentTree(latent.value, scores, latent.loss)

    def _scores(self, words: Tensor) -> Tensor:
        scores: Tensor = self.scorer(words)
        if not self.distance_penalty:
            return scores
        places = torch.arange(words.shape[1], device=words.device)
        distances = (places[:, None] - places).abs().clamp(min=1)
        penalties = self.distance_penalty * distances.to(scores.dtype).log()
        return scores - nn.functional.pad(penalties, (1, 0))  # of ROOT, which is nowhere, there is none
