"""Segmentations in other layouts, and back. The library's own is that of `Segmentation`: `(batch, n, max_length, labels)`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_latent.inference.checks import describe


def lists_from_choices(choices: Tensor, labels: int) -> list[list[tuple[int, int, int]]]:
    """Of each sentence its segments in order, `(first word, word after the last, label)`, from `choices (batch, n)`."""
    if not isinstance(choices, Tensor) or choices.dim() != 2 or choices.is_floating_point():
        raise ValueError(f"`choices` must be an integer tensor of shape (batch, n), got {describe(choices)}.")
    return [
        [(word, word + own // labels + 1, own % labels) for word, own in enumerate(row) if own >= 0] for row in choices.tolist()
    ]


def choices_from_lists(sentences: Sequence[Sequence[tuple[int, int, int]]], n: int, max_length: int, labels: int) -> Tensor:
    """The inverse of `lists_from_choices`: `(batch, n)`. That the segments fill their sentences is not checked here.

    Raises:
        ValueError: a segment that does not lie within n words, has more than `max_length` of them, or another label; the first
            is named.
    """
    choices = torch.full((len(sentences), n), -1)
    for row, segments in enumerate(sentences):
        for first, end, label in segments:
            if not (0 <= first < end <= n and end - first <= max_length and 0 <= label < labels):
                raise ValueError(
                    f"`sentences` must hold segments (first word, word after the last, label) within {n} words, of at most "
                    f"{max_length} of them and with a label below {labels}, but sentence {row} has {(first, end, label)}."
                )
            choices[row, first] = (end - first - 1) * labels + label
    return choices


def segments_from_choices(choices: Tensor, max_length: int, labels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """0/1 segments `(..., n, max_length, labels)` from `choices (..., n)`, -1 where none begins."""
    found = torch.nn.functional.one_hot(choices.clamp(min=0).long(), max_length * labels)
    return (found * (choices >= 0)[..., None]).to(dtype).unflatten(-1, (max_length, labels))


def choices_from_segments(segments: Tensor) -> Tensor:
    """The inverse of `segments_from_choices`; for marginals, what likeliest begins at each word (a segmentation or not)."""
    flat = segments.flatten(-2)
    return flat.argmax(-1).masked_fill(flat.amax(-1) == 0, -1)


def to_torch_struct(segments: Tensor, transitions: Tensor | None = None) -> Tensor:
    """`(batch, n, max_length + 1, labels, labels)` as torch-struct's `SemiMarkovCRF` has them; its lengths are one more.

    Indexed `[first word, number of words, label, label before]`; before the first segment comes label 0. `transitions` are
    `(labels, labels)`.
    """
    batch, n, longest, labels = segments.shape
    found = segments.new_full((batch, n, longest + 1, labels, labels), -1e9)
    found[:, :, 1:] = segments[..., None] + (0.0 if transitions is None else transitions.mT)
    found[:, :1, 1:] = -1e9
    found[:, :1, 1:, :, 0] = segments[:, :1]
    return found
