"""Relaxations: the choice is replaced by a point of the polytope that depends smoothly on the scores (paper, section 4)."""

from dataclasses import dataclass

from torch import Tensor

from hf_latent.estimators.estimator import Estimator, Latent, TaskLoss, no_loss, register_estimator
from hf_latent.inference.checks import check_positive
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
    """Structured attention (Kim et al. 2017): the decoder sees the expectation Marg(s / temperature) of the choice.

    Attributes:
        temperature: divides the scores. A low one gives nearly the best structure, a high one nearly the mean of all.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)

    def evaluate(self, structure: Structure, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        return structure.marginals(_tempered(structure, scores, lengths, self.temperature), lengths).to(scores.dtype)


@register_estimator("sparsemap")
@dataclass(frozen=True)
class SparseMAP(Relaxation):
    """The decoder sees the projection Π_M(s / temperature), a combination of a few structures (Niculae et al. 2018).

    Attributes:
        temperature: divides the scores. A low one gives the best structure, a high one a combination of many.
        tol: the duality gap at which the projection stops; see `Structure.sparsemap`. On real sentences, the default
            gave an error of 0.01 to 0.02 for a whole sentence, and half as many trees as the exact projection has.
    """

    temperature: float = 1.0
    tol: float = 1e-2

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_positive("tol", self.tol)

    def evaluate(self, structure: Structure, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        scores_over = _tempered(structure, scores, lengths, self.temperature)
        return structure.sparsemap(scores_over, lengths, self.tol).to(scores.dtype)


def _tempered(structure: Structure, scores: Tensor, lengths: Tensor | None, temperature: float) -> Tensor:
    """s / temperature, in float64 where there is anything to divide: half precision has no room for the quotient."""
    return scores if temperature == 1 else structure.check(scores, lengths)[0].double() / temperature
