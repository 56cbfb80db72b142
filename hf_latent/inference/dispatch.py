"""One declaration makes the operations of a structure: checks, operators of torch, fakes, gradients, devices.

Each operation is a custom operator of torch, so that `torch.compile` and whatever else traces a model sees one opaque step.
What can be told from shapes and dtypes is checked before the operator is called, so that tracing a model shows it; values are
checked within it.

A structure declares a reference, and compiled kernels for the CPU if there are any. These then answer on the CPU, and on every
other device, from where the numbers come to the CPU and go back. The reference answers where there are no kernels, and
`with reference_only():`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from hf_latent.inference import active_set
from hf_latent.inference.algorithms import listed_by_row
from hf_latent.inference.checks import check_count, check_start, describe, is_eager
from hf_latent.inference.operators import Operators, reference_only, shaped
from hf_latent.inference.random import draw_seeds

__all__ = ["Operations", "reference_only"]


class Operations(Operators):
    """The operations of one class of structures. Every method takes the structure, of which it has the options."""

    def check_shapes(self, structure: Any, scores: Any, lengths: Any = None) -> tuple[Tensor, Tensor | None]:
        """`scores` and `lengths` of right types and shapes; their values are checked by the operators.

        Raises:
            TypeError: scores that are no floating-point tensor, lengths that are not integers.
            ValueError: scores or lengths of another shape.
            NotImplementedError: scores that `torch.func` or forward-mode differentiation transforms.
        """
        scores, lengths = shaped(structure, scores, lengths)
        what = type(structure).__name__
        if is_eager() and forward_ad.unpack_dual(scores).tangent is not None:
            # torch's operators in Python have backward derivatives only, and would give 0 here.
            raise NotImplementedError(
                f"`{what}` has no forward-mode derivatives (`torch.func.jvp`, `torch.autograd.forward_ad`): use `backward()` "
                "or `torch.autograd.grad`."
            )
        if is_eager() and torch.func.debug_unwrap(scores) is not scores:
            raise NotImplementedError(
                f"`{what}` cannot be transformed by `torch.func` (`grad`, `vjp`, `jacrev`, `hessian`, `vmap`): use "
                "`backward()`, `torch.autograd.grad` or `torch.autograd.functional`, and put what would be mapped over into "
                "the batch."
            )
        return scores, lengths

    def options(self, structure: Any) -> tuple[Any, ...]:
        return tuple([getattr(structure, name) for name in self.fields])

    def argmax(self, structure: Any, scores: Tensor, lengths: Tensor | None) -> Tensor:
        scores, lengths = self.check_shapes(structure, scores, lengths)
        return self.argmax_operator(scores.detach(), lengths, *self.options(structure))

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor | None) -> Tensor:
        return self.log_partition_operator(*self.check_shapes(structure, scores, lengths), *self.options(structure))

    def marginals(self, structure: Any, scores: Tensor, lengths: Tensor | None) -> Tensor:
        return self.marginals_operator(*self.check_shapes(structure, scores, lengths), *self.options(structure))

    def sample(
        self, structure: Any, scores: Tensor, lengths: Tensor | None, num_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        scores, lengths = self.check_shapes(structure, scores, lengths)
        check_count("num_samples", num_samples)
        seeds = draw_seeds((num_samples, scores.shape[0]), generator, scores.device)
        return self.sample_operator(scores.detach(), lengths, seeds, *self.options(structure))

    def top_k(self, structure: Any, scores: Tensor, lengths: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
        scores, lengths = self.check_shapes(structure, scores, lengths)
        check_count("k", k)
        return self.top_k_operator(scores.detach(), lengths, k, *self.options(structure))

    def sparsemap(
        self,
        structure: Any,
        scores: Tensor,
        lengths: Tensor | None,
        tol: float | None,
        max_iter: int,
        start: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """The operator's six results; the first is differentiable."""
        tol = active_set.check_stopping(tol, max_iter, scores)
        scores, lengths = self.check_shapes(structure, scores, lengths)
        if start is not None:
            start = check_start(start, scores).detach().to(scores.dtype)
        return self.sparsemap_operator(scores, lengths, start, tol, max_iter, *self.options(structure))

    def sparsemap_solution(
        self,
        structure: Any,
        scores: Tensor,
        lengths: Tensor | None,
        tol: float | None,
        max_iter: int,
        start: Tensor | None,
    ) -> active_set.SparseMAPSolution:
        scores = scores.detach() if isinstance(scores, Tensor) else scores
        point, choices, weights, counts, gaps, converged = self.sparsemap(structure, scores, lengths, tol, max_iter, start)
        vertices, shares = listed_by_row(structure, choices, weights, counts, point)
        return active_set.SparseMAPSolution(point, vertices.to(point.dtype), shares.to(point.dtype), gaps, converged)

    def project_from(self, structure: Any, targets: Tensor, start: Tensor, lengths: Tensor | None) -> Tensor:
        targets, lengths = self.check_shapes(structure, targets, lengths)
        start = check_start(start, targets).detach().to(targets.dtype)
        return self.project_from_operator(targets.detach(), start, lengths, *self.options(structure))

    def project_from_marginals(self, structure: Any, targets: Tensor, scores: Tensor, lengths: Tensor | None) -> Tensor:
        scores, lengths = self.check_shapes(structure, scores, lengths)
        if not isinstance(targets, Tensor) or targets.shape != scores.shape:
            raise ValueError(
                f"`targets` must be a tensor of the shape of `scores`, {tuple(scores.shape)}, got {describe(targets)}."
            )
        return self.project_from_marginals_operator(targets.detach(), scores.detach(), lengths, *self.options(structure))
