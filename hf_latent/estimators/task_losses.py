"""Running the rest of the network on a value in place of the choice: its losses and their gradient."""

import warnings

import torch
from torch import Tensor

from hf_latent.estimators.estimator import TaskLoss
from hf_latent.inference.checks import is_eager

# For users of a Trainer, some of whose options take the labels away before the model sees them.
HINT = (
    "(Did a Trainer take the labels away? It does so for `label_smoothing_factor` and `compute_loss_func`, and so does a loss "
    "of your own that pops them: pass them to the model all the same, and add `output.latent_loss.mean()` to your loss.)"
)


def needs_task_loss(name: str, task_loss: TaskLoss | None) -> TaskLoss:
    """`task_loss`, for the estimator called `name`.

    Raises:
        ValueError: it is None; the message says what to do.
    """
    if task_loss is None:
        raise ValueError(
            f"Estimator {name!r} needs a `task_loss` (for a model: `labels`) in training, since it looks at the downstream "
            "loss in its forward pass. Pass one, call `model.eval()` for inference, or use an estimator that needs none, such "
            f"as 'ste_marginals' or a relaxation. {HINT}"
        )
    return task_loss


def losses_of(task_loss: TaskLoss, value: Tensor, differentiable: bool = False) -> Tensor:
    """The loss of each example at `value`, `(batch,)`, with dropout as the forward pass after the estimator will draw it.

    Args:
        task_loss, value: as estimators take them; `value` is in place of the choice.
        differentiable: whether the losses have gradients (of the decoder, and of `value`).

    Raises:
        ValueError: a `task_loss` that does not return one loss for each example.
    """
    if torch.compiler.is_compiling():  # the random state is not at hand in a compiled graph, which draws dropout anew
        with torch.set_grad_enabled(differentiable):
            return _checked(task_loss(value), value)
    devices = [value.device] if value.device.type != "cpu" else []
    with torch.set_grad_enabled(differentiable), torch.random.fork_rng(devices):
        return _checked(task_loss(value), value)


def task_loss_gradient(task_loss: TaskLoss, value: Tensor) -> Tensor:
    """γ(μ), the gradient of each example's loss at `value` (Eq. 8).

    An example whose gradient is not finite gets 0 in its place, with a warning; it does not spoil the others'.

    Raises:
        ValueError: a `task_loss` that does not return one loss for each example, or does not depend on the value; a gradient
            that is finite for no example.
    """
    if torch.compiler.is_compiling():  # autograd.grad cannot be traced here
        gradient = torch.func.grad(lambda guess: _checked(task_loss(guess), guess).sum())(value.detach()).detach()
    else:
        gradient = _gradient_by_autograd(task_loss, value)
    finite = gradient.flatten(1).isfinite().all(1)
    if is_eager() and not finite.all():
        advice = "the network has diverged: lower the learning rate or clip the gradients."
        if not finite.any():
            raise ValueError(f"The gradient of `task_loss` must be finite, and is so for no example: {advice}")
        warnings.warn(
            f"The gradient of `task_loss` is not finite for {int((~finite).sum())} of {len(finite)} examples (the first is "
            f"example {int((~finite).nonzero()[0])}), which the choice learns nothing from. If this goes on, {advice}",
            stacklevel=3,
        )
    return gradient.masked_fill(~finite.view(-1, *[1] * (value.dim() - 1)), 0.0)


def _gradient_by_autograd(task_loss: TaskLoss, value: Tensor) -> Tensor:
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "`torch.inference_mode()` rules out the gradients that this estimator takes in training. Call `model.eval()`, or "
            "use `torch.no_grad()`."
        )
    with torch.enable_grad():  # also where the caller wants none for the rest of the network
        value = value.detach().requires_grad_()
        losses = losses_of(task_loss, value, differentiable=True)
        if not losses.requires_grad:
            raise ValueError("`task_loss` must depend on the value it is called with, in a differentiable way; it does not.")
        (gradient,) = torch.autograd.grad(losses.sum(), value, allow_unused=True)
    if gradient is None:
        raise ValueError("`task_loss` must depend on the value it is called with; it does not use it.")
    return gradient


def _checked(losses: object, value: Tensor) -> Tensor:
    if not isinstance(losses, Tensor) or losses.shape != value.shape[:1]:
        got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"{type(losses).__name__}"
        raise ValueError(
            f"`task_loss` must return the loss of each example, shape ({value.shape[0]},), got {got}. "
            'Compute the loss with `reduction="none"`.'
        )
    return losses
