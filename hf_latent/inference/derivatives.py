"""Derivatives within an operator, where torch has them switched off: in a thread of their own, which knows nothing of that."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor


def differentiably(work: Callable[[], Tensor]) -> Tensor:
    """What `work` returns, called where gradients are recorded."""
    results: list[Tensor] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with torch.enable_grad():
                results.append(work().detach())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="hf_latent", daemon=True)  # a Ctrl-C ends the wait, and not the work
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of a sum of values."""

    def work() -> Tensor:
        leaf = at.detach().clone().requires_grad_()
        return _grad(function(leaf).sum(), leaf)

    return differentiably(work)


def hessian_product(function: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor) -> Tensor:
    """How that gradient changes when its argument moves along `direction`."""

    def work() -> Tensor:
        leaf = at.detach().clone().requires_grad_()
        first = _grad(function(leaf).sum(), leaf, create_graph=True)
        return _grad((first * direction.detach()).sum(), leaf)

    return differentiably(work)


def _grad(value: Tensor, leaf: Tensor, create_graph: bool = False) -> Tensor:
    """The gradient, 0 also where the value does not depend on the leaf at all."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(value, leaf, create_graph=create_graph, allow_unused=True, materialize_grads=True)
    return found
