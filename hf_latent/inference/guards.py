"""What is put around the two methods that a structure of one's own has: precision, and rows with nothing to choose."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor

from hf_latent.inference.checks import NEVER_OUT_OF_REACH, at_least_float32, is_eager, raise_no_structure


def guarded_argmax(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An `argmax` that raises where parts are forbidden and the best structure has one that cannot be: then each one has."""

    @wraps(method)
    def argmax(structure: Any, scores: Tensor, lengths: Tensor | None = None, **options: Any) -> Tensor:
        best = method(structure, scores, lengths, **options)
        if is_eager() and scores.numel() and not scores.detach().amin().item() > NEVER_OUT_OF_REACH:
            _, _, positions, allowed = structure.checked(scores.detach(), lengths)
            restricted, impossible = positions & ~allowed, (best != 0) & ~allowed
            missing = restricted.flatten(1).any(1) & impossible.flatten(1).any(1)
            if missing.any():
                raise_no_structure(int(missing.nonzero()[0]))
        return best

    vars(argmax)["unguarded"] = method
    return argmax


def unguarded(argmax: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method as it was written, for loops whose scores have been checked."""
    return getattr(argmax, "unguarded", argmax)


def guarded_log_partition(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A `log_partition` in float32 at least, which raises where it is -inf: the row has no structure."""

    @wraps(method)
    def log_partition(structure: Any, scores: Tensor, lengths: Tensor | None = None, **options: Any) -> Tensor:
        if isinstance(scores, Tensor) and scores.is_floating_point():
            scores = scores.to(at_least_float32(scores.dtype))
        value = method(structure, scores, lengths, **options)
        if is_eager() and value.isneginf().any():
            raise_no_structure(int(value.isneginf().nonzero()[0]))
        return value

    return log_partition
