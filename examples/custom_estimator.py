"""A gradient estimator of your own, beside those of the library, held against the exact gradient.

    python examples/custom_estimator.py

An estimator is a frozen dataclass with a name. In training, it returns what the decoder sees and a loss for each example, whose
gradient goes to the scores; options are its fields. Any structure will do, since it asks the structure for all that it needs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent import Categorical, Estimator, Latent, Structure, register_estimator
from hf_latent.diagnostics import compare_gradients
from hf_latent.estimators import check_positive, needs_task_loss, surrogate_loss, task_loss_gradient


@register_estimator("marginal_step")
@dataclass(frozen=True)
class MarginalStep(Estimator):
    """The decoder sees MAP(s); the scores get η times the gradient at Marg(s), through the marginals.

    Attributes:
        step_size: η.
    """

    step_size: float = 1.0

    def __post_init__(self) -> None:
        check_positive("step_size", self.step_size)

    def __call__(self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss=None) -> Latent:
        task_loss = needs_task_loss(self.name, task_loss)
        scores, lengths = structure.check(scores, lengths)
        marginals = structure.marginals(scores, lengths)
        gamma = task_loss_gradient(task_loss, marginals.detach())
        loss = self.step_size * (gamma * marginals).flatten(1).sum(1)
        return Latent(structure.argmax(scores, lengths), surrogate_loss(loss))  # its value is 0, its gradient is what counts


if __name__ == "__main__":
    torch.manual_seed(0)
    scores, goal = torch.randn(2, 20, 4)
    names = ["marginal_step", "spigot_ce", "ste_marginals", "score_function"]
    found = compare_gradients(names, Categorical(), scores, lambda z: (z - goal).square().sum(1), repeats=100)
    print("cosine with the exact gradient (1: the right direction)")
    for name, quality in found.items():
        print(f"  {name:16} {quality.cosine.mean():.2f}")
