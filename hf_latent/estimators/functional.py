"""Straight-through functions: an argmax whose backward pass uses the gradient that arrives.

They serve networks that cannot hand over a task loss. The gradient that arrives at the choice is that of the *total* loss:
a mean over the batch divides each example's gradient by the batch size, and loss scaling multiplies it. `ste_identity` passes
that factor on unchanged. `spigot` projects, which is not linear: its effective step shrinks as the batch grows, and its output
does not scale with its input. The estimators of the same names take a task loss, and do not depend on the batch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_latent.inference.checks import check_positive
from hf_latent.structures import Structure


def ste_identity(structure: Structure, scores: Tensor, lengths: Tensor | None = None, step_size: float = 1.0) -> Tensor:
    """MAP(s), with the backward pass of the identity times `step_size` (STE-I, Eq. 15): ∂s = ηγ.

    `scores` are `(batch, *event)`; the result has their shape. Where no part can be, there is no gradient.
    """
    scores, lengths = structure.check(scores, lengths)
    return _StraightThrough.apply(scores, structure, lengths, step_size, False)


def spigot(structure: Structure, scores: Tensor, lengths: Tensor | None = None, step_size: float = 1.0) -> Tensor:
    """MAP(s), with the backward pass ∂s = z - Π_M(z - ηγ) (SPIGOT, Eq. 9; Peng et al. 2018).

    `scores` are `(batch, *event)`; the result has their shape. γ is the gradient that arrives, with its scale (see above).
    """
    scores, lengths = structure.check(scores, lengths)
    return _StraightThrough.apply(scores, structure, lengths, step_size, True)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, structure: Structure, lengths: Tensor, step_size: float, project: bool) -> Tensor:
        check_positive("step_size", step_size)
        value = structure.argmax(scores, lengths)
        ctx.save_for_backward(value, lengths, structure.mask(scores, lengths))
        ctx.structure, ctx.step_size, ctx.project = structure, step_size, project
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, lengths, mask = ctx.saved_tensors
        # In float64: value - step may be so close to value that float32 could not tell.
        gradient = ctx.step_size * grad.double().masked_fill(~mask, 0.0)
        if ctx.project:
            vertex = value.double()
            target = (vertex - gradient).masked_fill(~mask, -torch.inf)
            gradient = vertex - ctx.structure.project_from(target, value, lengths)
        return gradient.to(grad.dtype), None, None, None, None
