"""Operators of torch on structures with two kinds of scores, such as those of segments and of transitions between them.

What is checked, fakes, gradients, devices; see `operators` for structures with one kind.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.checks import check_count, check_like, check_structures, seen_as
from hf_latent.inference.operators import by_way_of_the_cpu, is_reference_wanted

Checked = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]


class JointOperators:
    """All operators on scores `first (batch, n, ...)`, the `second`, and `lengths (batch,)` or None.

    Structures come as choices `(batch, n)` in int64. Gradients have the shapes and dtypes of the two kinds of scores.

    Attributes:
        argmax: -> choices `(batch, n)`.
        log_partition: -> `(batch,)` in float64; differentiable twice.
        expectations: with weights `(batch,)` -> the gradient of the weighted sum of it, in both; differentiable once.
        expectations_derivative: with weights, and directions of the shapes of both -> the derivatives of what `expectations`
            gives, and of the log-partition.
        sample: with seeds `(samples, batch)` -> choices `(samples, batch, n)`.
        top_k: with k -> choices `(batch, k, n)`, and scores `(batch, k)` in float64, -inf for none.
    """

    def __init__(self, name: str, kinds: tuple[str, str], checked: Checked, kernels: Any, reference: Any) -> None:
        """
        Args:
            name: what the names of the operators begin with.
            kinds: what the two kinds of scores are called.
            checked: from what may be anything, both with -inf for what is forbidden, and lengths in range; or an error.
            kernels: a module with a function for each operator, of what has been checked; `argmax` returns besides which rows
                have a structure, `(batch,)`.
            reference: the same, without `top_k`.
        """
        self.name, self.kinds, self.checked, self.kernels, self.reference = name, kinds, checked, kernels, reference
        self.argmax = self.make("argmax", "", "Tensor", self._argmax, self._fake_argmax)
        self.log_partition = self.make("log_partition", "", "Tensor", self._log_partition, self._fake_log_partition)
        self.expectations = self.make(
            "expectations", ", Tensor weights", "(Tensor, Tensor)", self._expectations, self._fake_expectations
        )
        self.expectations_derivative = self.make(
            "expectations_derivative",
            ", Tensor weights, Tensor along, Tensor second_along",
            "(Tensor, Tensor, Tensor)",
            self._expectations_derivative,
            self._fake_expectations_derivative,
        )
        self.sample = self.make("sample", ", Tensor seeds", "Tensor", self._sample, self._fake_sample)
        self.top_k = self.make("top_k", ", int k", "(Tensor, Tensor)", self._top_k, self._fake_top_k)
        self.log_partition.register_autograd(self._log_partition_backward, setup_context=_save)
        self.expectations.register_autograd(self._expectations_backward, setup_context=_save)

    def make(self, name: str, others: str, outputs: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
        """An operator on both kinds of scores, lengths, and whatever `others` its schema has."""
        made = torch.library.custom_op(
            f"hf_latent::{self.name}_{name}",
            by_way_of_the_cpu(function),
            mutates_args=(),
            schema=f"(Tensor {self.kinds[0]}, Tensor {self.kinds[1]}, Tensor? lengths{others}) -> {outputs}",
        )
        made.register_kernel("cpu")(function)
        made.register_fake(fake)
        return made

    def entropy(self, first: Tensor, second: Tensor, each: Tensor, lengths: Tensor | None) -> Tensor:
        """-Σ_z p(z) log p(z), `(batch,)` in float64, in nats; `each` are the `second` scores of each row.

        Differentiable once.
        """
        first, each = first.double(), each.double()
        expected = self.expectations(first, each, lengths, first.new_ones(len(first)))
        value = self.log_partition(first, second, lengths)
        for scores, chances in zip((first, each), expected, strict=True):
            value = value - (scores.masked_fill(chances == 0, 0.0) * chances).flatten(1).sum(1)
        return torch.where(value < 0, value - value.detach(), value)  # rounding only

    # --- what they do ---

    def _answer(self, name: str, first: Tensor, second: Tensor, lengths: Tensor | None, *others: Any) -> Any:
        """What the kernels say, or the reference."""
        given = self.checked(first, second, lengths)
        with seen_as(lambda _, place: (self.kinds[0], place)):
            if not is_reference_wanted():
                return getattr(self.kernels, name)(*given, *others)
            check_structures(self.reference.argmax(*given)[1])
            return getattr(self.reference, name)(*given, *others)

    def _argmax(self, first: Tensor, second: Tensor, lengths: Tensor | None) -> Tensor:
        found, exists = self._answer("argmax", first, second, lengths)
        check_structures(exists, self.kinds[0])
        return found

    def _log_partition(self, first: Tensor, second: Tensor, lengths: Tensor | None) -> Tensor:
        return self._answer("log_partition", first, second, lengths)

    def _expectations(self, first: Tensor, second: Tensor, lengths: Tensor | None, weights: Tensor) -> tuple[Tensor, Tensor]:
        check_like(weights, (len(first),), first, "weights")
        found = self._answer("expectations", first, second, lengths, weights.detach())
        return found[0].to(first.dtype), found[1].to(second.dtype)

    def _expectations_derivative(
        self, first: Tensor, second: Tensor, lengths: Tensor | None, weights: Tensor, along: Tensor, second_along: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        check_like(weights, (len(first),), first, "weights")
        check_like(along, first.shape, first, "along")
        check_like(second_along, second.shape, first, "second_along")
        moved = self._answer("expectations_derivative", first, second, lengths, weights, along, second_along)
        return moved[0].to(first.dtype), moved[1].to(second.dtype), moved[2].to(weights.dtype)

    def _sample(self, first: Tensor, second: Tensor, lengths: Tensor | None, seeds: Tensor) -> Tensor:
        check_like(seeds, (None, len(first)), first, "seeds", torch.int64)
        return self._answer("sample", first, second, lengths, seeds)

    def _top_k(self, first: Tensor, second: Tensor, lengths: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
        check_count("k", k)
        found, scores = self.kernels.top_k(*self.checked(first, second, lengths), k)  # there is no other
        check_structures(~scores[:, 0].isneginf(), self.kinds[0])
        return found, scores

    # --- fakes: shapes and dtypes of the results ---

    def _fake_argmax(self, first: Tensor, second: Tensor, lengths: Tensor | None) -> Tensor:
        return first.new_empty(first.shape[:2], dtype=torch.int64)

    def _fake_log_partition(self, first: Tensor, second: Tensor, lengths: Tensor | None) -> Tensor:
        return first.new_empty(first.shape[0], dtype=torch.float64)

    def _fake_expectations(self, first: Tensor, second: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return first.new_empty(first.shape), second.new_empty(second.shape)

    def _fake_expectations_derivative(
        self, first: Tensor, second: Tensor, lengths: Tensor | None, weights: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        return first.new_empty(first.shape), second.new_empty(second.shape), weights.new_empty(weights.shape)

    def _fake_sample(self, first: Tensor, second: Tensor, lengths: Tensor | None, seeds: Tensor) -> Tensor:
        return first.new_empty(seeds.shape[0], *first.shape[:2], dtype=torch.int64)

    def _fake_top_k(self, first: Tensor, second: Tensor, lengths: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
        batch, n = first.shape[:2]
        return first.new_empty(batch, k, n, dtype=torch.int64), first.new_empty(batch, k, dtype=torch.float64)

    # --- gradients ---

    def _log_partition_backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *self.expectations(*ctx.saved_tensors, grad), None

    def _expectations_backward(self, ctx: Any, along: Tensor, second_along: Tensor) -> tuple[Tensor | None, ...]:
        moved = self.expectations_derivative(*ctx.saved_tensors, along, second_along)
        return moved[0], moved[1], None, moved[2]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)
