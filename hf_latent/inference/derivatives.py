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


def weighted_gradient(function: Callable[..., Tensor], scores: tuple[Tensor, ...], weights: Tensor) -> tuple[Tensor, ...]:
    """The gradient of Σ weights · function(*scores), a tensor for each of the scores, in float64."""
    joined = differentiably(lambda: _joined_gradient(function, scores, weights)[0])
    return _split(joined, scores)


def weighted_gradient_derivative(
    function: Callable[..., Tensor], scores: tuple[Tensor, ...], weights: Tensor, directions: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """How that gradient changes when the scores move along the directions; and last, how `function(*scores)` does."""
    direction = torch.cat([one.double().flatten() for one in directions])

    def work() -> Tensor:
        first, *leaves = _joined_gradient(function, scores, weights)
        if not first.requires_grad:  # there is nothing to choose
            return torch.cat([torch.zeros_like(leaf) for leaf in leaves])
        along = (first * direction).sum()
        return torch.cat(torch.autograd.grad(along, leaves, materialize_grads=True, allow_unused=True))

    moved = differentiably(work)
    size = len(moved) - len(weights)
    return *_split(moved[:size], scores), moved[size:].clone()


def _joined_gradient(function: Callable[..., Tensor], scores: tuple[Tensor, ...], weights: Tensor) -> list[Tensor]:
    """The gradient in one piece, and what it depends on: all scores in one piece, and the weights."""
    leaf = torch.cat([one.double().flatten() for one in scores]).detach().requires_grad_()
    mass = weights.double().detach().clone().requires_grad_()
    total = (function(*_split(leaf, scores)) * mass).sum()
    (found,) = torch.autograd.grad(total, leaf, create_graph=True, materialize_grads=True, allow_unused=True)
    return [found, leaf, mass]


def _split(joined: Tensor, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Apart again, in the shapes that they had."""
    parts = joined.split([one.numel() for one in like])
    return tuple(part.view(one.shape).clone() for part, one in zip(parts, like, strict=True))


def _grad(value: Tensor, leaf: Tensor, create_graph: bool = False) -> Tensor:
    """The gradient, 0 also where the value does not depend on the leaf at all."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(value, leaf, create_graph=create_graph, allow_unused=True, materialize_grads=True)
    return found
