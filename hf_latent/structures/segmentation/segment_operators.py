"""Operators of torch on segmentations whose neighbours have scores of transitions: what is checked, fakes, gradients, devices.

All take `segments (batch, n, max_length, labels)`, `transitions` `(labels, labels)`, `(batch, labels, labels)` or `(0, 0)` for
none, and `lengths (batch,)` or None.
"""

from typing import Any

import torch
from torch import Tensor

from hf_latent.inference.checks import (
    check_floating,
    check_lengths,
    check_range,
    checked_values,
    describe,
    full_lengths,
    seen_as,
)
from hf_latent.inference.joint_operators import JointOperators
from hf_latent.structures.segmentation import reference
from hf_latent.structures.segmentation.cpu import operations


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


operators = JointOperators("segmentation_linked", ("segments", "transitions"), _checked, operations, reference)
