"""Operators of torch on segmentations whose neighbours have scores of transitions: what is checked, fakes, gradients, devices.

All take `segments (batch, n, max_length, labels)`, `transitions` `(labels, labels)`, `(batch, labels, labels)` or `(0, 0)` for
none, and `lengths (batch,)` or None.
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
    seen_as,
)
from hf_latent.inference.operators import connect, is_reference_wanted, operator
from hf_latent.structures.segmentation import reference
from hf_latent.structures.segmentation.cpu import operations

_INPUTS = "Tensor segments, Tensor transitions, Tensor? lengths"


def check_shapes(segments: Any, transitions: Any, lengths: Any) -> Tensor | None:
    """The lengths in int64, or an error that names what is wrong with a type or a shape."""
    check_floating(segments, "(batch, n, max_length, labels)", 4, "segments")
    batch, _, longest, labels = segments.shape
    if not longest * labels:
        raise ValueError(f"`segments` must have at least one length and one label, got {describe(segments)}.")
    shapes = (labels, labels), (batch, labels, labels)
    is_floating = isinstance(transitions, Tensor) and transitions.is_floating_point()
    if not is_floating or tuple(transitions.shape) not in (*shapes, (0, 0)):
        raise ValueError(
            f"`transitions` must be floating point and have shape (labels, labels), here {shapes[0]}, or one dimension more in "
            f"front for the sentences, here {shapes[1]}: a row for the label of the earlier segment, a column for that of the "
            f"later; or None. Got {describe(transitions)}."
        )
    if transitions.device != segments.device:
        raise ValueError(f"`transitions` must be on the device of `segments`, {segments.device}, got {transitions.device}.")
    return None if lengths is None else check_lengths(lengths, batch, segments.device)


def _checked(segments: Tensor, transitions: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """With -inf for what is forbidden, and lengths in range."""
    lengths = check_shapes(segments, transitions, lengths)
    if lengths is not None:
        check_range(lengths, segments.shape[1])
    lengths = full_lengths(lengths, segments)
    segments = checked_values(segments.detach(), reference.positions(segments, lengths), "segments")
    transitions = transitions.detach()
    links = transitions if transitions.dim() == 3 else transitions[None]
    with seen_as(lambda name, place: (name, place[3 - transitions.dim() :])):
        checked = checked_values(links, torch.ones_like(links, dtype=torch.bool), "transitions")
    return segments, checked.view(transitions.shape), lengths


def _answer(name: str, segments: Tensor, transitions: Tensor, lengths: Tensor | None, *others: Any) -> Any:
    """What the kernels say, or the reference, by a function that both have."""
    given = _checked(segments, transitions, lengths)
    with seen_as(lambda _, place: ("segments", place)):
        if not is_reference_wanted():
            return getattr(operations, name)(*given, *others)
        operations.raise_if_none(reference.best_segments(*given)[1])
        return getattr(reference, name)(*given, *others)


def _argmax(segments: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    found, exists = _answer("best_segments", segments, transitions, lengths)
    operations.raise_if_none(exists, "segments")
    return found


def _log_partition(segments: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    return _answer("log_partition", segments, transitions, lengths)


def _expectations(segments: Tensor, transitions: Tensor, lengths: Tensor | None, weights: Tensor) -> tuple[Tensor, Tensor]:
    check_like(weights, (len(segments),), segments, "weights")
    found, links = _answer("expectations", segments, transitions, lengths, weights.detach())
    return found.to(segments.dtype), links.to(transitions.dtype)


def _expectations_derivative(
    segments: Tensor, transitions: Tensor, lengths: Tensor | None, weights: Tensor, along: Tensor, links_along: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    check_like(weights, (len(segments),), segments, "weights")
    check_like(along, segments.shape, segments, "along")
    check_like(links_along, transitions.shape, segments, "links_along")
    moved = _answer("expectations_derivative", segments, transitions, lengths, weights, along, links_along)
    return moved[0].to(segments.dtype), moved[1].to(transitions.dtype), moved[2].to(weights.dtype)


def _sample(segments: Tensor, transitions: Tensor, lengths: Tensor | None, seeds: Tensor) -> Tensor:
    check_like(seeds, (None, len(segments)), segments, "seeds", torch.int64)
    return _answer("sample_segments", segments, transitions, lengths, seeds)


def _top_k(segments: Tensor, transitions: Tensor, lengths: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    check_count("k", k)
    found, scores = operations.k_best_segments(*_checked(segments, transitions, lengths), k)  # there is no other
    operations.raise_if_none(~scores[:, 0].isneginf(), "segments")
    return found, scores


def _fake_choices(segments: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    return segments.new_empty(segments.shape[:2], dtype=torch.int64)


def _fake_total(segments: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    return segments.new_empty(segments.shape[0], dtype=torch.float64)


def _fake_expectations(segments: Tensor, transitions: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return segments.new_empty(segments.shape), transitions.new_empty(transitions.shape)


def _fake_derivative(segments: Tensor, transitions: Tensor, lengths: Any, weights: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return *_fake_expectations(segments, transitions), weights.new_empty(weights.shape)


def _fake_sample(segments: Tensor, transitions: Tensor, lengths: Tensor | None, seeds: Tensor) -> Tensor:
    return segments.new_empty(seeds.shape[0], *segments.shape[:2], dtype=torch.int64)


def _fake_top_k(segments: Tensor, transitions: Tensor, lengths: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    batch, n = segments.shape[:2]
    return segments.new_empty(batch, k, n, dtype=torch.int64), segments.new_empty(batch, k, dtype=torch.float64)


def _operator(name: str, others: str, outputs: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    return operator(f"segments_{name}", f"({_INPUTS}{others}) -> {outputs}", function, fake)


argmax = _operator("argmax", "", "Tensor", _argmax, _fake_choices)
log_partition = _operator("log_partition", "", "Tensor", _log_partition, _fake_total)
expectations = _operator("expectations", ", Tensor weights", "(Tensor, Tensor)", _expectations, _fake_expectations)
expectations_derivative = _operator(
    "expectations_derivative",
    ", Tensor weights, Tensor along, Tensor links_along",
    "(Tensor, Tensor, Tensor)",
    _expectations_derivative,
    _fake_derivative,
)
sample = _operator("sample", ", Tensor seeds", "Tensor", _sample, _fake_sample)
top_k = _operator("top_k", ", int k", "(Tensor, Tensor)", _top_k, _fake_top_k)
connect(log_partition, expectations, expectations_derivative)
