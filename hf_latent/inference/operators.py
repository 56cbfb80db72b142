"""The operators of torch that a structure's declaration makes: what each does on which device, fakes, gradients.

Whoever calls one (`torch.ops.hf_latent.<name>_…`) may hand over anything: types, shapes and values are checked here, once.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hf_latent.inference import active_set
from hf_latent.inference.algorithms import Algorithms, groups_and_columns, vertices_of
from hf_latent.inference.checks import (
    at_least_float32,
    check_count,
    check_lengths,
    check_like,
    check_range,
    checked_input,
    checked_values,
    full_lengths,
    raise_no_structure,
)

_wanted = threading.local()


@contextmanager
def reference_only() -> Iterator[None]:
    """Within it, the reference answers, also where there are kernels: for tests. Of this thread alone."""
    before = getattr(_wanted, "reference", False)
    _wanted.reference = True
    try:
        yield
    finally:
        _wanted.reference = before


def is_reference_wanted() -> bool:
    """Whether this thread is within `reference_only()`."""
    return getattr(_wanted, "reference", False)


def by_way_of_the_cpu(operator: Callable[..., Any]) -> Callable[..., Any]:
    """The operator for tensors on a device that has no kernels: their numbers come to the CPU, and the results go back."""

    def moved(*arguments: Any) -> Any:
        device = next((value.device for value in arguments if isinstance(value, Tensor)), None)
        if device is None:
            return operator(*arguments)  # and its error
        results = operator(*(value.cpu() if isinstance(value, Tensor) else value for value in arguments))
        return results.to(device) if isinstance(results, Tensor) else tuple(result.to(device) for result in results)

    return moved


class Operators:
    """The operators of one class of structures, whose fields are their last arguments."""

    def __init__(self, name: str, structure_class: type, reference: Algorithms, cpu: Algorithms | None = None) -> None:
        """
        Args:
            name: what the names of the operators begin with.
            structure_class: a frozen dataclass, a `DeclaredStructure`.
            reference: the algorithms in PyTorch, for any device.
            cpu: compiled for the CPU.
        """
        self.name, self.reference, self.cpu = name, reference, cpu
        self.structure_of = lru_cache(maxsize=None)(structure_class)
        self.fields = [field.name for field in fields(structure_class)]
        types = {field.name: getattr(field.type, "__name__", field.type) for field in fields(structure_class)}
        self._schema_of_options = "".join(f", {types[name]} {name}" for name in self.fields)
        self.argmax_operator = self._operator("argmax", "Tensor scores, Tensor? lengths", self._argmax)
        self.log_partition_operator = self._operator(
            "log_partition", "Tensor scores, Tensor? lengths", self._log_partition, self._fake_log_partition
        )
        self.marginals_operator = self._operator("marginals", "Tensor scores, Tensor? lengths", self._marginals)
        self.marginals_vjp_operator = self._operator(
            "marginals_vjp", "Tensor scores, Tensor? lengths, Tensor grad", self._marginals_vjp
        )
        self.sample_operator = self._operator(
            "sample", "Tensor scores, Tensor? lengths, Tensor seeds", self._sample, self._fake_sample
        )
        self.top_k_operator = self._operator(
            "top_k", "Tensor scores, Tensor? lengths, int k", self._top_k, self._fake_top_k, "(Tensor, Tensor)"
        )
        self.sparsemap_operator = self._operator(
            "sparsemap",
            "Tensor scores, Tensor? lengths, Tensor? start, float tol, int max_iter",
            self._sparsemap,
            self._fake_sparsemap,
            "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        )
        self.sparsemap_vjp_operator = self._operator(
            "sparsemap_vjp",
            "Tensor grad, Tensor? lengths, Tensor choices, Tensor weights, Tensor counts",
            self._sparsemap_vjp,
        )
        self.project_from_operator = self._operator(
            "project_from", "Tensor targets, Tensor start, Tensor? lengths", self._project_from
        )
        self.project_from_marginals_operator = self._operator(
            "project_from_marginals", "Tensor targets, Tensor scores, Tensor? lengths", self._project_from_marginals
        )
        self.log_partition_operator.register_autograd(self._log_partition_backward, setup_context=_save_scores)
        self.marginals_operator.register_autograd(self._marginals_backward, setup_context=_save_scores)
        self.sparsemap_operator.register_autograd(self._sparsemap_backward, setup_context=_save_support)

    def _operator(self, name: str, inputs: str, function: Callable[..., Any], fake: Any = None, outputs: str = "Tensor") -> Any:
        schema = f"({inputs}{self._schema_of_options}) -> {outputs}"
        anywhere = function if self.cpu is None else by_way_of_the_cpu(function)
        operator = torch.library.custom_op(f"hf_latent::{self.name}_{name}", anywhere, mutates_args=(), schema=schema)
        if self.cpu is not None:
            operator.register_kernel("cpu")(function)
        operator.register_fake(fake or self._fake_like_the_first)
        return operator

    # --- what they do ---

    def _algorithms(self) -> Algorithms:
        return self.reference if self.cpu is None or is_reference_wanted() else self.cpu

    def _ready(
        self, structure: Any, scores: Tensor, lengths: Tensor | None, name: str = "scores"
    ) -> tuple[Algorithms, Tensor, Any]:
        """Who answers, and what it is given: checked values, unless it checks them itself."""
        scores, lengths = shaped(structure, scores, lengths, name)
        algorithms = self._algorithms()
        if algorithms.checks_values:
            return algorithms, scores, lengths
        scores, lengths, positions, allowed = checked_input(structure, scores, lengths, name)
        if allowed is not positions and not torch.equal(allowed, positions):
            missing = ~algorithms.has_structure(structure, scores, lengths)
            if missing.any():
                raise_no_structure(int(missing.nonzero()[0]), name)
        return algorithms, scores, lengths

    def _argmax(self, scores: Tensor, lengths: Tensor | None, *options: Any) -> Tensor:
        structure = self.structure_of(*options)
        algorithms, scores, lengths = self._ready(structure, scores, lengths)
        return algorithms.argmax(structure, scores, lengths).to(scores.dtype)

    def _log_partition(self, scores: Tensor, lengths: Tensor | None, *options: Any) -> Tensor:
        structure = self.structure_of(*options)
        algorithms, scores, lengths = self._ready(structure, scores, lengths)
        return algorithms.log_partition(structure, scores, lengths).to(at_least_float32(scores.dtype))

    def _marginals(self, scores: Tensor, lengths: Tensor | None, *options: Any) -> Tensor:
        structure = self.structure_of(*options)
        algorithms, scores, lengths = self._ready(structure, scores, lengths)
        return algorithms.marginals(structure, scores, lengths).to(scores.dtype)

    def _marginals_vjp(self, scores: Tensor, lengths: Tensor | None, grad: Tensor, *options: Any) -> Tensor:
        structure = self.structure_of(*options)
        algorithms, scores, lengths = self._ready(structure, scores, lengths)
        check_like(grad, scores.shape, scores, "grad")
        return algorithms.marginals_derivative(structure, scores, lengths, grad).to(scores.dtype)

    def _sample(self, scores: Tensor, lengths: Tensor | None, seeds: Tensor, *options: Any) -> Tensor:
        structure = self.structure_of(*options)
        algorithms, scores, lengths = self._ready(structure, scores, lengths)
        check_like(seeds, (None, scores.shape[0]), scores, "seeds", torch.int64)
        choices = algorithms.sample(structure, scores, lengths, seeds)
        return vertices_of(structure, choices, tuple(scores.shape[1:]), scores.dtype)

    def _top_k(self, scores: Tensor, lengths: Tensor | None, k: int, *options: Any) -> tuple[Tensor, Tensor]:
        structure = self.structure_of(*options)
        check_count("k", k)
        scores, lengths, *_ = checked_input(structure, *shaped(structure, scores, lengths))
        choices, values = self._algorithms().top_k(structure, scores, lengths, k)
        missing = values[:, 0].isneginf()
        if missing.any():
            raise_no_structure(int(missing.nonzero()[0]))
        found = vertices_of(structure, choices, tuple(scores.shape[1:]), scores.dtype)
        return found, values.to(at_least_float32(scores.dtype))

    def _sparsemap(
        self, scores: Tensor, lengths: Tensor | None, start: Tensor | None, tol: float, max_iter: int, *options: Any
    ) -> tuple[Tensor, ...]:
        structure = self.structure_of(*options)
        algorithms, scores, lengths = self._ready(structure, scores, lengths)
        tol = active_set.check_stopping(tol, max_iter, scores)
        if start is not None:
            check_like(start, scores.shape, scores, "start")
        found = algorithms.sparsemap(structure, scores, lengths, start, tol, max_iter)
        if not found.converged.all():
            active_set.warn_of_gap(max_iter)
        return found.point.to(scores.dtype), *found[1:]

    def _sparsemap_vjp(
        self, grad: Tensor, lengths: Tensor | None, choices: Tensor, weights: Tensor, counts: Tensor, *options: Any
    ) -> Tensor:
        structure = self.structure_of(*options)
        grad, lengths = shaped(structure, grad, lengths, "grad")
        longest = structure.longest(grad)
        check_range(full_lengths(lengths, grad, longest), longest)
        groups, columns = groups_and_columns(structure, tuple(grad.shape[1:]))
        check_like(choices, (None, groups), grad, "choices", torch.int64)
        check_like(weights, (len(choices),), grad, "weights", torch.float64)
        check_like(counts, (grad.shape[0],), grad, "counts", torch.int64)
        if (counts < 0).any() or counts.sum() != len(choices):
            raise ValueError(
                f"`counts` must say how many of the {len(choices)} structures in `choices` each row has, got a sum of "
                f"{int(counts.sum())}."
            )
        if choices.numel() and not (choices.amin() >= -1 and choices.amax() < columns):
            raise ValueError(
                f"`choices` must lie between -1 (none) and {columns - 1}, got some from {choices.min()} to {choices.max()}."
            )
        change = self._algorithms().sparsemap_derivative(structure, grad, lengths, choices, weights, counts)
        return change.to(grad.dtype)

    def _project_from(self, targets: Tensor, start: Tensor, lengths: Tensor | None, *options: Any) -> Tensor:
        structure = self.structure_of(*options)
        algorithms, targets, lengths = self._ready(structure, targets, lengths, "targets")
        check_like(start, targets.shape, targets, "start")
        return algorithms.project_from(structure, targets, start, lengths).to(targets.dtype)

    def _project_from_marginals(self, targets: Tensor, scores: Tensor, lengths: Tensor | None, *options: Any) -> Tensor:
        structure = self.structure_of(*options)
        algorithms, scores, lengths = self._ready(structure, scores, lengths)
        check_like(targets, scores.shape, scores, "targets")
        positions = structure.positions(scores, full_lengths(lengths, scores, structure.longest(scores)))
        targets = checked_values(targets, positions, "targets")
        return algorithms.project_from_marginals(structure, targets, scores, lengths).to(targets.dtype)

    # --- fakes: shapes and dtypes of the results ---

    def _fake_like_the_first(self, first: Tensor, *rest: Any) -> Tensor:
        first = self._fake_structure(rest).check_shape(first)
        return torch.empty_like(first, memory_format=torch.contiguous_format)

    def _fake_structure(self, arguments: tuple[Any, ...]) -> Any:
        return self.structure_of(*arguments[len(arguments) - len(self.fields) :])

    def _fake_log_partition(self, scores: Tensor, *rest: Any) -> Tensor:
        scores = self._fake_structure(rest).check_shape(scores)
        return scores.new_empty(scores.shape[0], dtype=at_least_float32(scores.dtype))

    def _fake_sample(self, scores: Tensor, lengths: Tensor | None, seeds: Tensor, *options: Any) -> Tensor:
        scores = self._fake_structure(options).check_shape(scores)
        check_like(seeds, (None, scores.shape[0]), scores, "seeds", torch.int64)
        return scores.new_empty(seeds.shape[0], *scores.shape)

    def _fake_top_k(self, scores: Tensor, lengths: Tensor | None, k: int, *options: Any) -> tuple[Tensor, Tensor]:
        scores = self._fake_structure(options).check_shape(scores)
        values = scores.new_empty(scores.shape[0], k, dtype=at_least_float32(scores.dtype))
        return scores.new_empty(scores.shape[0], k, *scores.shape[1:]), values

    def _fake_sparsemap(self, scores: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        structure = self._fake_structure(rest)
        scores = structure.check_shape(scores)
        size, (groups, _) = scores.shape[0], groups_and_columns(structure, tuple(scores.shape[1:]))
        count = torch.library.get_ctx().new_dynamic_size()
        return (
            torch.empty_like(scores, memory_format=torch.contiguous_format),
            scores.new_empty((count, groups), dtype=torch.int64),
            scores.new_empty((count,), dtype=torch.float64),
            scores.new_empty((size,), dtype=torch.int64),
            scores.new_empty((size,), dtype=torch.float64),
            scores.new_empty((size,), dtype=torch.bool),
        )

    # --- gradients ---

    def _log_partition_backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scores, lengths = ctx.saved_tensors
        gradient = self.marginals_operator(scores, lengths, *ctx.options) * grad.view(-1, *[1] * (scores.dim() - 1))
        return gradient.to(scores.dtype), None, *[None] * len(ctx.options)

    def _marginals_backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scores, lengths = ctx.saved_tensors
        gradient = self.marginals_vjp_operator(scores, lengths, grad, *ctx.options)
        return gradient, None, *[None] * len(ctx.options)

    def _sparsemap_backward(self, ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return self.sparsemap_vjp_operator(grad, *ctx.saved_tensors, *ctx.options), *[None] * (4 + len(ctx.options))


def shaped(structure: Any, scores: Any, lengths: Any, name: str = "scores") -> tuple[Tensor, Any]:
    scores = structure.check_shape(scores, name)
    return scores, None if lengths is None else check_lengths(lengths, scores.shape[0], scores.device)


def _save_scores(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    scores, lengths, *options = inputs
    ctx.save_for_backward(scores, lengths)
    ctx.options = options


def _save_support(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, choices, weights, counts, gaps, _ = output
    ctx.save_for_backward(inputs[1], choices, weights, counts)
    ctx.mark_non_differentiable(weights, gaps)
    ctx.options = inputs[5:]
