"""Operators of torch on chains whose tags have scores beside their pairs: what is checked, fakes, gradients, devices.

All take `emissions (batch, n, tags)`, `transitions (tags, tags)` or `(batch, n - 1, tags, tags)`, and `lengths (batch,)` or
None.
"""

from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.checks import (
    check_floating,
    check_lengths,
    check_range,
    check_structures,
    checked_values,
    describe,
    full_lengths,
    seen_as,
)
from hf_latent.inference.joint_operators import JointOperators
from hf_latent.structures.linear_chain import tag_reference as reference
from hf_latent.structures.linear_chain.cpu import operations


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


def _max_marginals(emissions: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    given = _checked(emissions, transitions, lengths)
    with seen_as(lambda _, place: ("emissions", place)):
        check_structures(reference.argmax(*given)[1])
    return reference.max_marginals(*given)  # there is no other


def _fake_scores(emissions: Tensor, transitions: Tensor, lengths: Tensor | None) -> Tensor:
    return emissions.new_empty(emissions.shape, dtype=torch.float64)


operators = JointOperators("chain_tags", ("emissions", "transitions"), _checked, operations, reference)
max_marginals = operators.make("max_marginals", "", "Tensor", _max_marginals, _fake_scores)
