"""The pulled-back family: surrogate gradients as ordinary gradients of an intermediate loss (paper, sections 5 and 6).

If the right structure were known, the parser could be trained on it. It is not known. So k steps of optimization of the
downstream loss over the structure make a guess μᵏ, and the parser is trained on the guess:

    name           start μ⁰    inner step          intermediate loss      gradient
    ste_identity   MAP(s)      μ - ηγ              perceptron             μ⁰ - μᵏ      Eq. 15
    spigot         MAP(s)      Π_M(μ - ηγ)         perceptron             μ⁰ - μᵏ      Eqs. 9, 11, 14
    spigot_ce      Marg(s)     Π_M(μ - ηγ)         cross-entropy (CRF)    μ⁰ - μᵏ      Eq. 17
    spigot_eg      Marg(s)     Marg(s - Σ ηγ)      cross-entropy (CRF)    μ⁰ - μᵏ      Eqs. 21, 22

γ is the gradient of each example's own downstream loss with respect to μ (Eq. 8), so the step size η means the same for
every batch size. All of it happens in the forward pass. The loss returned is s·(μ⁰ - μᵏ) less its own value: a plain tensor,
which gradient accumulation, loss scaling and distributed training treat like any other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent.estimators.estimator import Estimator, Latent, TaskLoss, no_loss, register_estimator, surrogate_loss
from hf_latent.estimators.functional import spigot, ste_identity
from hf_latent.estimators.task_losses import HINT, task_loss_gradient
from hf_latent.inference.checks import check_choice, check_count, check_positive
from hf_latent.structures import Structure

STARTS = ("argmax", "marginals", "zero")

# η by default: the one that did best, or as well as any, wherever several were tried. See the README, "How to choose".
DEFAULT_STEP_SIZE = 0.1
AUTO = "auto"
# How far "auto" goes, in lengths of a structure.
AUTO_LENGTH = 0.5


@register_estimator("ste_identity", loss="perceptron", inner_step="gradient")
@register_estimator("spigot", loss="perceptron", inner_step="projected")
@register_estimator("spigot_ce", loss="cross_entropy", inner_step="projected")
@register_estimator("spigot_eg", loss="cross_entropy", inner_step="exponentiated", start="marginals")
@dataclass(frozen=True)
class PulledBack(Estimator):
    """The decoder sees MAP(s); the scores get the gradient μ⁰ - μᵏ.

    Attributes:
        loss: the intermediate loss, "perceptron" or "cross_entropy"; its gradient is MAP(s) - μᵏ, or Marg(s) - μᵏ.
        inner_step: "gradient", "projected" or "exponentiated".
        step_size: η, relative to the gradient of one example's loss. (The paper's code takes the gradient of the batch
            mean: its η is this one times the batch size.) Or "auto": in each inner step, the η that moves the structures of
            the batch by `AUTO_LENGTH` of their own length, see `automatic_step_size`.
        num_steps: k. Each step costs one pass through the decoder and back, and one projection or marginals.
        start: μ⁰, "argmax", "marginals" or "zero" (paper, section 5, "Different initialization"); by default MAP(s) for the
            perceptron loss and Marg(s) for cross-entropy, where the loss alone decides the gradient at μᵏ = μ⁰.
    """

    loss: str
    inner_step: str
    step_size: float | str = DEFAULT_STEP_SIZE
    num_steps: int = 1
    start: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.step_size, str) and self.step_size != AUTO:
            raise ValueError(f"`step_size` must be a positive, finite number, got {self.step_size!r}; or {AUTO!r}.")
        if not isinstance(self.step_size, str):
            check_positive("step_size", self.step_size)
        check_count("num_steps", self.num_steps)
        if self.start is not None:
            check_choice("start", self.start, STARTS)

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        """See `Estimator`.

        Raises:
            ValueError: no `task_loss`, where there is no one-step function to fall back to (only `ste_identity` and
                `spigot` with one step have one); or a `task_loss` that does not return one loss for each example.
        """
        if task_loss is None:
            return Latent(self._without_task_loss(structure, scores, lengths), no_loss(scores))
        scores, lengths = structure.check(scores, lengths)
        value = structure.argmax(scores, lengths)
        # In float64: μᵏ may be so close to μ⁰ that float32 could not tell their difference.
        exact = scores.detach().double()
        points = {"argmax": value.double(), "zero": torch.zeros_like(exact)}
        own = "argmax" if self.loss == "perceptron" else "marginals"
        start = self.start or own
        if "marginals" in (own, start):
            points["marginals"] = structure.marginals(exact, lengths)
        guess = self._pull_back(
            structure,
            exact,
            lengths,
            points[start],
            value,
            start == "marginals",
            lambda guess: task_loss(guess.to(scores.dtype)),
        )
        loss = structure.score(points[own] - guess, scores, lengths)
        return Latent(value, surrogate_loss(loss))

    def _pull_back(
        self,
        structure: Structure,
        scores: Tensor,
        lengths: Tensor,
        start: Tensor,
        value: Tensor,
        from_marginals: bool,
        task_loss: TaskLoss,
    ) -> Tensor:
        """μᵏ, from float64 scores, μ⁰ and MAP(s). Projections begin at μ⁰ where that is Marg(s), else at MAP(s).

        Every guess is 0 where no part can be.
        """
        guess, mask = start, structure.mask(scores, lengths)
        for _ in range(self.num_steps):
            gradient = task_loss_gradient(task_loss, guess).masked_fill(~mask, 0.0)
            step = self._step_size(structure, gradient, mask, lengths) * gradient
            if self.inner_step == "exponentiated":
                scores = scores - step
                guess = structure.marginals(scores, lengths)
            elif self.inner_step == "gradient":
                guess = guess - step
            else:
                target = (guess - step).masked_fill(~mask, -torch.inf)
                if from_marginals:
                    guess = structure.project_from_marginals(target, scores, lengths)
                else:
                    guess = structure.project_from(target, value, lengths)
        return guess

    def _step_size(self, structure: Structure, gradient: Tensor, mask: Tensor, lengths: Tensor) -> float | Tensor:
        if isinstance(self.step_size, str):
            return automatic_step_size(structure, gradient, mask, lengths)
        return self.step_size

    def _without_task_loss(self, structure: Structure, scores: Tensor, lengths: Tensor | None) -> Tensor:
        one_step = {"gradient": ste_identity, "projected": spigot}.get(self.inner_step)
        if one_step is None or self.loss != "perceptron" or self.start not in (None, "argmax") or self.num_steps > 1:
            raise ValueError(
                f"Estimator {self.name!r} with {self.num_steps} inner step(s) needs a `task_loss` (for a model: `labels`) in "
                "training, since it optimizes the downstream loss in its forward pass. Pass one, call `model.eval()` for "
                f"inference, or use 'ste_identity' or 'spigot' with one step, or a relaxation. {HINT}"
            )
        if isinstance(self.step_size, str):
            raise ValueError(f"Estimator {self.name!r} needs a `task_loss` to find its step size, or a `step_size` in numbers.")
        return one_step(structure, scores, lengths, self.step_size)


def automatic_step_size(structure: Structure, gradient: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """η, such that ηγ is `AUTO_LENGTH` times as long as a structure, in the mean square over the batch.

    A structure of k parts has the length √k. Of γ, what all parts of a group have in common does not count, since it changes
    nothing. One η for all rows: those whose loss asks for no change shall get none. Where γ is 0, so is η.

    Args:
        gradient: γ, `(batch, *event)`, 0 outside the `mask` of the same shape.
        lengths: as `structure.check` returned them.
    """
    dims = tuple(range(-(structure.group_dims or structure.event_dims), 0))
    common = gradient.sum(dims, keepdim=True) / mask.sum(dims, keepdim=True).clamp(min=1)
    size = (gradient - common).masked_fill(~mask, 0.0).square().sum()
    parts = structure.num_parts(lengths).sum()
    return torch.where(size > 0, AUTO_LENGTH * (parts / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt(), 0.0)
