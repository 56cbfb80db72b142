"""What a network sees of a segmentation: each word is put beside the segment that it lies in."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hf_latent.inference.checks import at_least_float32, check_choice, check_floating, check_like

MODES = ("mean", "ends")


class SegmentPooling(nn.Module):
    """Σ over the segments that contain word j, of z[segment] · (what the segment looks like), for each word j.

    `words (batch, n, size)` and a segmentation `(batch, n, max_length, labels)`, laid out as by `Segmentation` ->
    `(batch, n, size)`, or `(batch, n, 2 · size)`. Of a hard segmentation, each word gets the vector of its segment; of
    marginals or a SparseMAP solution, the expectation of it. Linear in both, so that every estimator has a gradient into z;
    words beyond the sentence, which no segment contains, get 0.

    In time and room O(n · max_length · size); sums are in float32 at least, without differences of large sums.

    Args:
        mode: "mean" takes the mean of the segment's words, "ends" its first and its last word, one after the other.

    Raises:
        TypeError, ValueError: an unknown mode, or tensors of another type or shape.
    """

    def __init__(self, mode: str = "mean") -> None:
        super().__init__()
        check_choice("mode", mode, MODES)
        self.mode = mode

    def forward(self, words: Tensor, segmentation: Tensor) -> Tensor:
        check_floating(words, "(batch, n, size)", 3, "words")
        check_like(segmentation, (*words.shape[:2], None, None), words, "segmentation")
        exact = at_least_float32(words.dtype)
        vectors, mass = words.to(exact), segmentation.to(exact).sum(3)[..., None]
        last = [_earlier(vectors, length) for length in range(mass.shape[2])]
        if self.mode == "mean":
            sums = itertools.accumulate(last)
            seen = torch.stack([total / count for count, total in enumerate(sums, 1)], 2)
        else:
            seen = torch.cat([vectors[:, :, None].expand(-1, -1, len(last), -1), torch.stack(last, 2)], 3)
        return _over_words(mass * seen).to(words.dtype)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"


def segment_labels(segmentation: Tensor) -> Tensor:
    """How much each word lies in segments of each label, `(batch, n, labels)`: in all, 1; and 0 beyond the sentence.

    Of a hard segmentation `(batch, n, max_length, labels)`, the label of each word (one-hot); of marginals, its distribution.
    """
    check_floating(segmentation, "(batch, n, max_length, labels)", 4, "segmentation")
    return _over_words(segmentation.to(at_least_float32(segmentation.dtype))).to(segmentation.dtype)


def _over_words(segments: Tensor) -> Tensor:
    """At each word, the sum over the segments that it lies in, `(batch, n, size)` from `(batch, n, max_length, size)`."""
    n = segments.shape[1]
    # Of the segments that begin at a word, those that have one more word, two more, and so on.
    longer = segments.flip(2).cumsum(2).flip(2)
    parts = [pad(longer[:, : max(n - later, 0), later], (0, 0, min(later, n), 0)) for later in range(segments.shape[2])]
    return torch.stack(parts).sum(0)


def _earlier(words: Tensor, count: int) -> Tensor:
    """Each word's vector moved to so many words before; 0 comes in from behind."""
    return pad(words[:, count:], (0, 0, 0, min(count, words.shape[1])))
