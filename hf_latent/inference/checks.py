"""What a caller may hand over, and the sentence they get when it is something else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

# Beyond this, differences of float64 scores say nothing any more, and sums of them overflow.
LARGEST_SCORE = 1e100

# A part is forbidden by a score of -inf, or by one so far below the best score of its row of the batch (times the size of that,
# where it is more than 1) that a structure with the part in it never counts: `finfo.min` and -1e18, which others mask with.
OUT_OF_REACH = 1e12
NEVER_OUT_OF_REACH = -OUT_OF_REACH / 2  # beside whatever best score


class Checked(NamedTuple):
    """What a public call has checked, for those that it calls.

    Attributes:
        scores: `(batch, *event)`, finite where they count, or -inf for what is forbidden.
        lengths: `(batch,)`, int64, in range.
        positions: as `scores`, True where an entry counts.
        allowed: as `scores`, True where a part can be: an entry counts and is not forbidden.
    """

    scores: Tensor
    lengths: Tensor
    positions: Tensor
    allowed: Tensor

    def double(self) -> "Checked":
        """In float64, for small differences of large numbers."""
        return self._replace(scores=self.scores.double())


class WrongAt(ValueError):
    """A value is wrong at one place of an argument, which `text` calls `{name}` and `{place}`.

    Without a name, `text` is the message as it is: so torch raises errors of its workers and replicas anew.
    """

    def __init__(self, text: str, name: str = "", place: tuple[int, ...] = ()) -> None:
        super().__init__(text, name, place)
        self.text, self.name, self.place = text, name, place

    def __str__(self) -> str:
        return self.text.format(name=self.name, place=list(self.place)) if self.name else self.text


@contextmanager
def seen_as(change: Callable[[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]) -> Iterator[None]:
    """Within it, errors call an argument and a place as the caller does, to whom `change` leads from what they are here."""
    try:
        yield
    except WrongAt as error:
        raise WrongAt(error.text, *change(error.name, error.place)) from None


def is_eager() -> bool:
    """Whether values can be looked at: a compiled graph must not depend on them."""
    return not torch.compiler.is_compiling()


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a sum over structures: scores that fit into float16 can have one that does not."""
    return torch.promote_types(dtype, torch.float32)


def describe(value: object) -> str:
    """A value as an error message names it: tensors by shape and dtype, all else by its repr."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return repr(value)


def check_floating(scores: object, shape: str, dims: int, name: str = "scores") -> Tensor:
    """`scores` itself, if it is a floating-point tensor with `dims` dimensions; `shape` is how to call them."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor of shape {shape}, got {describe(scores)}.")
    if not scores.is_floating_point():
        raise TypeError(f"`{name}` must be floating point, got {describe(scores)}. Convert them with `{name}.float()`.")
    if scores.layout != torch.strided:
        raise TypeError(f"`{name}` must be dense, got {describe(scores)} with layout {scores.layout}. Use `{name}.to_dense()`.")
    if scores.dim() != dims:
        raise ValueError(f"`{name}` must have shape {shape}, got {describe(scores)}.")
    return scores


def check_like(value: object, shape: tuple[int | None, ...], like: Tensor, name: str, dtype: torch.dtype | None = None) -> None:
    """Raises unless `value` is a tensor on the device of `like`, of this dtype (if None, a floating-point one) and shape.

    Any size will do where `shape` has None.
    """
    kind = str(dtype or "floating point").removeprefix("torch.")
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a {kind} tensor, got {describe(value)}.")
    if (value.dtype != dtype if dtype else not value.is_floating_point()) or value.layout != torch.strided:
        raise TypeError(f"`{name}` must be {kind} and dense, got {describe(value)} with layout {value.layout}.")
    if value.dim() != len(shape) or any(size not in (own, None) for own, size in zip(value.shape, shape, strict=True)):
        named = ", ".join("any" if size is None else str(size) for size in shape) + ("," if len(shape) == 1 else "")
        raise ValueError(f"`{name}` must have shape ({named}), got {describe(value)}.")
    if value.device != like.device:
        raise ValueError(f"`{name}` must be on {like.device}, got it on {value.device}.")


def in_reach(scores: Tensor, positions: Tensor) -> Tensor:
    """True where a part can be: at one of the `positions` (bool, as `scores (batch, *event)`), and not forbidden."""
    if not scores.numel() or (is_eager() and scores.detach().amin().item() > NEVER_OUT_OF_REACH):
        return positions
    exact = scores.detach().double()
    best = exact.masked_fill(~positions, -torch.inf).flatten(1).amax(1)
    lowest = (best - OUT_OF_REACH * best.abs().clamp(min=1)).view(-1, *[1] * (scores.dim() - 1))
    return positions & (exact >= lowest) & (exact > -torch.inf)


def checked_values(scores: Tensor, positions: Tensor, name: str = "scores") -> Tensor:
    """`scores` with -inf for all that is forbidden; raises where one that counts is NaN, inf, or beyond `LARGEST_SCORE`.

    `positions` (bool, as `scores`) says where scores count. Values are looked at where there are some to be seen.
    """
    if is_eager() and scores.numel():
        lowest, largest = (value.item() for value in scores.detach().aminmax())
        if lowest > NEVER_OUT_OF_REACH and largest <= LARGEST_SCORE:  # the rule: nothing is forbidden, nothing is wrong
            return scores
        check_finite(scores, positions, name)
    return scores.masked_fill(~in_reach(scores, positions), -torch.inf)


def checked_input(structure: Any, scores: Tensor, lengths: Tensor | None, name: str = "scores") -> Checked:
    """`scores` and `lengths` of right shapes and types (see `Structure.check_shapes`), their values checked, and the masks."""
    longest = structure.longest(scores)
    if lengths is not None and is_eager():
        check_range(lengths, longest)
    lengths = full_lengths(lengths, scores, longest)
    positions = structure.positions(scores, lengths)
    values = checked_values(scores, positions, name)
    return Checked(values, lengths, positions, positions if values is scores else positions & ~values.isneginf())


def check_finite(scores: Tensor, positions: Tensor, name: str = "scores") -> None:
    """Raises where a score that counts is NaN or inf, or where one that is in reach is beyond `LARGEST_SCORE` in size."""
    exact = scores.detach().double()
    wrong = ~(exact <= LARGEST_SCORE) & positions
    if scores.numel() and not wrong.any():
        wrong = in_reach(scores, positions) & (exact < -LARGEST_SCORE)
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        raise WrongAt(
            f"`{{name}}` must be finite (and at most {LARGEST_SCORE:g} in size), or -inf for what is forbidden, but "
            f"{{name}}{{place}} is {scores[place].item()} ({int(wrong.sum())} such of {int(positions.sum())}). If a network "
            "computed them, its training has diverged: lower the learning rate or clip the gradients.",
            name,
            place,
        )


def raise_no_structure(row: int, name: str = "scores") -> NoReturn:
    """Raises: `scores[row]` forbid all structures."""
    raise WrongAt(
        "`{name}` must leave a structure to choose in every row, but in {name}{place} each one has a part that is forbidden "
        f"(by a score of -inf, or one that lies more than {OUT_OF_REACH:g} below the row's best). Allow more of them, or leave "
        "the row out.",
        name,
        (row,),
    )


def check_structures(exists: Tensor, name: str = "scores") -> None:
    """Raises unless all rows have a structure, `exists (batch,)`."""
    if not exists.all():
        raise_no_structure(int((~exists).nonzero()[0]), name)


def check_ends(scores: object, labels: int, like: Tensor, name: str) -> Tensor:
    """`scores` of what is first or last, `(labels,)` or, for each row of `like`, `(batch, labels)`; or an error."""
    of_rows = isinstance(scores, Tensor) and scores.dim() == 2
    check_like(scores, (like.shape[0], labels) if of_rows else (labels,), like, name)
    assert isinstance(scores, Tensor)  # which it is by now
    if is_eager():
        rows = scores if of_rows else scores[None]
        with seen_as(lambda name, place: (name, place[2 - scores.dim() :])):
            check_finite(rows, torch.ones_like(rows, dtype=torch.bool), name)
    return scores


def check_lengths(lengths: object, batch: int, device: torch.device, name: str = "lengths") -> Tensor:
    """`lengths` as int64 on `device`, if they are integers of shape `(batch,)`. Their values: see `check_range`."""
    if not isinstance(lengths, Tensor):
        try:
            lengths = torch.as_tensor(lengths if batch else [], dtype=None if batch else torch.int64)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"`{name}` must be an integer tensor of shape ({batch},), got {describe(lengths)}.") from None
    if lengths.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(
            f"`{name}` must have an integer dtype, got {describe(lengths)}. From an attention mask, use `mask.sum(1)`."
        )
    if lengths.shape != (batch,):
        raise ValueError(f"`{name}` must have shape ({batch},), one for each row of `scores`, got {describe(lengths)}.")
    return lengths.to(device=device, dtype=torch.int64)


def check_range(lengths: Tensor, largest: int, name: str = "lengths") -> None:
    """Raises unless all `lengths (batch,)` lie between 0 and `largest`."""
    wrong = (lengths < 0) | (lengths > largest)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise WrongAt(
            f"`{{name}}` must lie between 0 and {largest}, the size of `scores`, but {{name}}{{place}} is {int(lengths[row])}.",
            name,
            (row,),
        )


def full_lengths(lengths: Tensor | None, scores: Tensor, longest: int | None = None) -> Tensor:
    """`lengths`, or `longest` for every row if there are none: by default, the size of dimension 1 of `scores`."""
    if lengths is not None:
        return lengths
    return torch.full((scores.shape[0],), scores.shape[1] if longest is None else longest, device=scores.device)


def check_count(name: str, value: object) -> None:
    """Raises unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}.")


def check_start(start: object, scores: Tensor) -> Tensor:
    """`start` itself, if it is a tensor of the shape of `scores`. That it holds structures: see `checked_start`."""
    if not isinstance(start, Tensor) or start.shape != scores.shape:
        raise ValueError(f"`start` must be structures, a tensor of shape {tuple(scores.shape)}, got {describe(start)}.")
    return start


def checked_start(start: Tensor, allowed: Tensor, argmax: Callable[[Tensor], Tensor]) -> Tensor:
    """`start` in float64, `(batch, size)`, if it is one structure in each row: the best one for scores that prefer it."""
    best = argmax(torch.where(start > 0.5, 1.0, -1.0).double())
    same = ((best == start) & (allowed | (start == 0))).flatten(1).all(1)
    if not same.all():
        raise_invalid_start(int((~same).nonzero()[0]))
    return start.double().flatten(1)


def raise_invalid_start(row: int) -> NoReturn:
    """Raises: `start[row]` is not one of the structures."""
    raise WrongAt(
        "`{name}` must be structures that there are, but {name}{place} is none. Take what `argmax` or `sample` returns.",
        "start",
        (row,),
    )


def check_positive(name: str, value: object) -> None:
    """Raises unless `value` is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"`{name}` must be a positive, finite number, got {value!r}.")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises unless `value` is one of the `choices`."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
