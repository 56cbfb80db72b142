"""Relaxations: the choice is replaced by a point of the polytope that depends smoothly on the scores (paper, section 4)."""

from dataclasses import dataclass

from torch import Tensor

from hf_latent.estimators.estimator import Estimator, Latent, TaskLoss, check_positive, no_loss, register_estimator
from hf_latent.structures import Structure


class Relaxation(Estimator):
    """The decoder sees the relaxed value, in training and after; the gradient is the exact one of the relaxed network."""

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        return Latent(self.evaluate(structure, scores, lengths), no_loss(scores))


@register_estimator("marginals")
@dataclass(frozen=True)
class Marginals(Relaxation):
    """Structured attention (Kim et al. 2017): the decoder sees the expectation Marg(s) of the choice."""

    def evaluate(self, structure: Structure, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        return structure.marginals(scores, lengths)


@register_estimator("sparsemap")
@dataclass(frozen=True)
class SparseMAP(Relaxation):
    """The decoder sees the projection Π_M(s), a combination of a few structures (Niculae et al. 2018).

    Attributes:
        tol: the duality gap at which the projection stops; see `Structure.sparsemap`.
    """

    tol: float = 1e-4

    def __post_init__(self) -> None:
        check_positive("tol", self.tol)

    def evaluate(self, structure: Structure, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        return structure.sparsemap(scores, lengths, self.tol)
