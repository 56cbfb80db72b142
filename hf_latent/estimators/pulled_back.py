"""The pulled-back family: surrogate gradients as ordinary gradients of an intermediate loss (paper, sections 5 and 6).

If the right structure were known, the parser could be trained on it. It is not, so a guess μᵏ is made by k steps of
optimization of the downstream loss over the structure, and the parser is trained on the guess:

    name           start μ⁰    inner step          intermediate loss      gradient
    ste_identity   MAP(s)      μ - ηγ              perceptron             μ⁰ - μᵏ      Eq. 15
    spigot         MAP(s)      Π_M(μ - ηγ)         perceptron             μ⁰ - μᵏ      Eqs. 9, 11, 14
    spigot_ce      Marg(s)     Π_M(μ - ηγ)         cross-entropy (CRF)    μ⁰ - μᵏ      Eq. 17
    spigot_eg      Marg(s)     Marg(s - Σ ηγ)      cross-entropy (CRF)    μ⁰ - μᵏ      Eqs. 21, 22

γ is the gradient of each example's own downstream loss with respect to μ (Eq. 8), so the step size η means the same for
every batch size. All of it happens in the forward pass, and the loss returned is s·(μ⁰ - μᵏ) less its own value: a plain
tensor, which gradient accumulation, loss scaling and distributed training treat like any other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent.estimators.estimator import Estimator, Latent, TaskLoss, check_positive, no_loss, register_estimator
from hf_latent.estimators.straight_through import PROJECTION_TOLERANCE, spigot, ste_identity
from hf_latent.structures import Structure


@register_estimator("ste_identity", start="argmax", inner_step="gradient")
@register_estimator("spigot", start="argmax", inner_step="projected")
@register_estimator("spigot_ce", start="marginals", inner_step="projected")
@register_estimator("spigot_eg", start="marginals", inner_step="exponentiated")
@dataclass(frozen=True)
class PulledBack(Estimator):
    """The decoder sees MAP(s); the scores get the gradient μ⁰ - μᵏ.

    Attributes:
        start: μ⁰, "argmax" or "marginals"; it fixes the intermediate loss, whose gradient at μ⁰ it is.
        inner_step: "gradient", "projected" or "exponentiated".
        step_size: η, relative to the gradient of one example's loss. (The paper's code takes the gradient of the batch
            mean: its η is this one times the batch size.)
        num_steps: k. Each step costs one pass through the decoder and back, and one projection or marginals.
    """

    start: str
    inner_step: str
    step_size: float = 1.0
    num_steps: int = 1

    def __post_init__(self) -> None:
        check_positive("step_size", self.step_size)
        if isinstance(self.num_steps, bool) or not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise ValueError(f"`num_steps` must be an integer of at least 1, got {self.num_steps!r}.")

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
        value = structure.argmax(scores, lengths)
        # In float64: μᵏ may be so close to μ⁰ that float32 could not tell their difference.
        exact = scores.detach().double()
        start = value.double() if self.start == "argmax" else structure.marginals(exact, lengths)
        guess = self._pull_back(structure, exact, lengths, start, value, lambda guess: task_loss(guess.to(scores.dtype)))
        direction = start - guess
        loss = structure.score(direction, scores, lengths)
        return Latent(value, loss - loss.detach())

    def _pull_back(
        self,
        structure: Structure,
        scores: Tensor,
        lengths: Tensor | None,
        start: Tensor,
        value: Tensor,
        task_loss: TaskLoss,
    ) -> Tensor:
        """μᵏ, from float64 scores, μ⁰ and MAP(s), which projections begin at."""
        guess = start
        for _ in range(self.num_steps):
            step = self.step_size * _gradient(task_loss, guess)
            if self.inner_step == "exponentiated":
                scores = scores - step
                guess = structure.marginals(scores, lengths)
            else:
                guess = guess - step
                if self.inner_step == "projected":
                    guess = structure.sparsemap(guess, lengths, PROJECTION_TOLERANCE, start=value)
        return guess

    def _without_task_loss(self, structure: Structure, scores: Tensor, lengths: Tensor | None) -> Tensor:
        one_step = {"gradient": ste_identity, "projected": spigot}.get(self.inner_step)
        if one_step is None or self.start != "argmax" or self.num_steps > 1:
            raise ValueError(
                f"Estimator {self.name!r} with {self.num_steps} inner step(s) needs a `task_loss` (for a model: `labels`) in "
                "training, since it optimizes the downstream loss in its forward pass. Pass one, call `model.eval()` for "
                "inference, or use 'ste_identity' or 'spigot' with one step, or a relaxation."
            )
        return one_step(structure, scores, lengths, self.step_size)


def _gradient(task_loss: TaskLoss, value: Tensor) -> Tensor:
    """γ(μ), the gradient of each example's loss (Eq. 8)."""
    if torch.compiler.is_compiling():
        # `torch.compile` traces this form alone; and it draws dropout anew here, where it is part of one graph.
        return torch.func.grad(lambda guess: _checked_losses(task_loss, guess).sum())(value.detach()).detach()
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "`torch.inference_mode()` rules out the gradients that a pulled-back estimator takes in training. Call "
            "`model.eval()`, or use `torch.no_grad()`."
        )
    devices = [value.device] if value.device.type != "cpu" else []
    # The random state is put back afterwards, so that each inner step and the forward pass draw the same dropout.
    with torch.enable_grad(), torch.random.fork_rng(devices):
        value = value.detach().requires_grad_()
        losses = _checked_losses(task_loss, value)
        if not losses.requires_grad:
            raise ValueError("`task_loss` must depend on the value it is called with, in a differentiable way; it does not.")
        (gradient,) = torch.autograd.grad(losses.sum(), value, allow_unused=True)
        if gradient is None:
            raise ValueError("`task_loss` must depend on the value it is called with; it does not use it.")
    if not gradient.isfinite().all():
        raise ValueError(
            "The gradient of `task_loss` must be finite, and is not: the network has diverged. Lower the learning "
            "rate or clip the gradients."
        )
    return gradient


def _checked_losses(task_loss: TaskLoss, value: Tensor) -> Tensor:
    losses = task_loss(value)
    if not isinstance(losses, Tensor) or losses.shape != value.shape[:1]:
        got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"{type(losses).__name__}"
        raise ValueError(
            f"`task_loss` must return the loss of each example, shape ({value.shape[0]},), got {got}. "
            'Compute the loss with `reduction="none"`.'
        )
    return losses
