"""Operators of torch on chains whose tags have scores beside their pairs: what is checked, fakes, gradients, devices.

All take `emissions (batch, n, tags)`, `transitions (tags, tags)` or `(batch, n - 1, tags, tags)`, and `lengths (batch,)` or
None.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.checks import (
    check_count,
    check_floating,
    check_lengths,
    check_like,
    check_range,
    checked_values,
    describe,
    full_lengths,
    raise_no_structure,
    seen_as,
)
from hf_latent.inference.operators import connect, is_reference_wanted, operator
from hf_latent.structures.linear_chain import tag_reference as reference
from hf_latent.structures.linear_chain.cpu import operations

_INPUTS = "Tensor emissions, Tensor transitions, Tensor? lengths"


def check_shapes(emissions: Any, transitions: Any, lengths: Any) -> Tensor | None:
    """The lengths in int64, or an error that names what is wrong with a type or a shape."""
    check_floating(emissions, "(batch, n, tags)", 3, "emissions")
    batch, n, tags = emissions.shape
    if not tags:
        raise ValueError(f"`emissions` must have at least one tag in their last dimension, got {describe(emissions)}.")
    shapes = (tags, tags), (batch, max(n - 1, 0), tags, tags)
    if not isinstance(transitions, Tensor) or not transitions.is_floating_point() or tuple(transitions.shape) not in shapes:
        raise ValueError(
            f"`transitions` must be floating point and have shape (tags, tags), here {shapes[0]}, or "
            f"(batch, n - 1, tags, tags), here {shapes[1]}: a row for the tag of the first word, a column for that of the "
            f"second; got {describe(transitions)}."
        )
    if transitions.device != emissions.device:
        raise ValueError(f"`transitions` must be on the device of `emissions`, {emissions.device}, got {transitions.device}.")
    return None if lengths is None else check_lengths(lengths, batch, emissions.device)


def _checked(emissions: Tensor, transitions: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """With -inf for what is forbidden, and lengths in range."""
    lengths = check_shapes(emissions, transitions, lengths)
    if lengths is not None:
        check_range(lengths, emissions.shape[1])
    lengths = full_lengths(lengths, emissions)
    inside = torch.arange(emissions.shape[1], device=lengths.device) < lengths[:, None]
    emissions = checked_values(emissions.detach(), inside[:, :, None].expand(emissions.shape), "emissions")
    transitions = transitions.detach()
    if transitions.dim() == 4:
        pairs = inside[:, 1:, None, None].expand(transitions.shape)
        return emissions, checked_values(transitions, pairs, "transitions"), lengths
    with seen_as(lambda name, place: (name, place[1:])):
        everywhere = torch.ones_like(transitions[None], dtype=torch.bool)
        return emissions, checked_values(transitions[None], everywhere, "transitions")[0], lengths


def _answer(name: str, emissions: Tensor, transitions: Tensor, lengths: Tensor | None, *others: Any) -> Any:
    """What the kernels say, or the reference, by a function that both have."""
    given = _checked(emissions, transitions, lengths)
    with seen_as(lambda _, place: ("emissions", place)):
        if not is_reference_wanted():
            return getattr(operations, name)(*given, *others)
        _raise_if_none(reference.best_tags(*given)[1])
        return getattr(reference, name)(*given, *others)


def _raise_if_none(exists: Tensor) -> None:
    if not exists.all():
        raise_no_structure(int((~exists).nonzero()[0]), "emissions")


def _argmax(emissions: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    found, exists = _answer("best_tags", emissions, transitions, lengths)
    _raise_if_none(exists)
    return found


def _log_partition(emissions: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    return _answer("log_partition", emissions, transitions, lengths)


def _expectations(emissions: Tensor, transitions: Tensor, lengths: Tensor | None, weights: Tensor) -> tuple[Tensor, Tensor]:
    check_like(weights, (len(emissions),), emissions, "weights")
    nodes, pairs = _answer("expectations", emissions, transitions, lengths, weights.detach())
    return nodes.to(emissions.dtype), pairs.to(transitions.dtype)


def _expectations_derivative(
    emissions: Tensor, transitions: Tensor, lengths: Tensor | None, weights: Tensor, nodes: Tensor, pairs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    check_like(weights, (len(emissions),), emissions, "weights")
    check_like(nodes, emissions.shape, emissions, "nodes")
    check_like(pairs, transitions.shape, emissions, "pairs")
    moved = _answer("expectations_derivative", emissions, transitions, lengths, weights, nodes, pairs)
    return moved[0].to(emissions.dtype), moved[1].to(transitions.dtype), moved[2].to(weights.dtype)


def _sample(emissions: Tensor, transitions: Tensor, lengths: Tensor | None, seeds: Tensor) -> Tensor:
    check_like(seeds, (None, len(emissions)), emissions, "seeds", torch.int64)
    return _answer("sample_tags", emissions, transitions, lengths, seeds)


def _top_k(emissions: Tensor, transitions: Tensor, lengths: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    check_count("k", k)
    given = _checked(emissions, transitions, lengths)
    found, scores = operations.k_best_tags(*given, k)  # there is no other
    _raise_if_none(~scores[:, 0].isneginf())
    return found, scores


def _max_marginals(emissions: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    given = _checked(emissions, transitions, lengths)
    with seen_as(lambda _, place: ("emissions", place)):
        _raise_if_none(reference.best_tags(*given)[1])
    return reference.max_marginals(*given)  # there is no other


def _fake_scores(emissions: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    return emissions.new_empty(emissions.shape, dtype=torch.float64)


def _fake_tags(emissions: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    return emissions.new_empty(emissions.shape[:2], dtype=torch.int64)


def _fake_total(emissions: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    return emissions.new_empty(emissions.shape[0], dtype=torch.float64)


def _fake_expectations(emissions: Tensor, transitions: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return emissions.new_empty(emissions.shape), transitions.new_empty(transitions.shape)


def _fake_derivative(emissions: Tensor, transitions: Tensor, lengths: Any, weights: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return emissions.new_empty(emissions.shape), transitions.new_empty(transitions.shape), weights.new_empty(weights.shape)


def _fake_sample(emissions: Tensor, transitions: Tensor, lengths: Tensor | None, seeds: Tensor) -> Tensor:
    return emissions.new_empty(seeds.shape[0], *emissions.shape[:2], dtype=torch.int64)


def _fake_top_k(emissions: Tensor, transitions: Tensor, lengths: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    batch, n, _ = emissions.shape
    return emissions.new_empty(batch, k, n, dtype=torch.int64), emissions.new_empty(batch, k, dtype=torch.float64)


def _operator(name: str, others: str, outputs: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    return operator(f"chain_tags_{name}", f"({_INPUTS}{others}) -> {outputs}", function, fake)


argmax = _operator("argmax", "", "Tensor", _argmax, _fake_tags)
log_partition = _operator("log_partition", "", "Tensor", _log_partition, _fake_total)
expectations = _operator("expectations", ", Tensor weights", "(Tensor, Tensor)", _expectations, _fake_expectations)
expectations_derivative = _operator(
    "expectations_derivative",
    ", Tensor weights, Tensor nodes, Tensor pairs",
    "(Tensor, Tensor, Tensor)",
    _expectations_derivative,
    _fake_derivative,
)
max_marginals = _operator("max_marginals", "", "Tensor", _max_marginals, _fake_scores)
sample = _operator("sample", ", Tensor seeds", "Tensor", _sample, _fake_sample)
top_k = _operator("top_k", ", int k", "(Tensor, Tensor)", _top_k, _fake_top_k)
connect(log_partition, expectations, expectations_derivative)
