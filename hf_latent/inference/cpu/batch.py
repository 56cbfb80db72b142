"""Rows of a batch on their way through kernels: numbers in and out, the threads around them, what became of each row."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hf_latent.inference.checks import check_finite, check_range, raise_no_structure
from hf_latent.inference.cpu.simd import WIDTH
from hf_latent.inference.cpu.threads import SMALLEST_SHARE, run_groups

# What a row of the batch can come to.
DONE, NOT_FINITE, OUT_OF_RANGE, NOT_CONVERGED, NO_STRUCTURE, BAD_START = 0, 1, 2, 3, 4, 5

KERNEL_DTYPES = (torch.float32, torch.float64)


def array(tensor: Tensor) -> np.ndarray:
    """In order, and in float32 where it is less. Without a copy where that can be: new memory costs as much as inference."""
    tensor = tensor.detach().resolve_neg()
    return (tensor if tensor.dtype in KERNEL_DTYPES else tensor.float()).contiguous().numpy()


class Batch:
    """Scores of right shapes, and the order in which their rows go through the kernels.

    A *group* is `WIDTH` rows that go through a kernel together, longest first.
    """

    def __init__(
        self, scores: Tensor, lengths: Tensor | None, longest: int, positions: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        """`longest` is the largest length there is room for; `positions(scores, lengths)` says where scores count."""
        self.scores, self._longest, self._positions = scores, longest, positions
        self.values = array(scores)
        count = len(self.values)
        self.status, self.cancelled = np.zeros(count, np.int8), np.zeros(1, np.bool_)
        if lengths is None:
            self.sizes = np.full(count, longest)
            self.order = np.arange(count)
        else:
            self.sizes = lengths.numpy().copy()  # kernels rely on them: nobody may change them meanwhile
            check_range(lengths, longest)
            self.order = np.argsort(-self.sizes, kind="stable")

    def run(
        self,
        work: Callable[[int, int], None],
        nanoseconds: float,
        power: int = 3,
        longest: float = 1.0,
        required: bool = True,
    ) -> None:
        """Calls `work(first, last)` on ranges of groups; one of rows of length n takes about `nanoseconds` · n^`power`.

        Rare ones take up to `longest` times as long.

        Raises:
            ValueError: a score that is not finite, or a row all whose structures are forbidden, if one is `required`.
        """
        groups = -(-len(self.order) // WIDTH)
        if groups * nanoseconds * (self._longest + 1) ** power < 2 * SMALLEST_SHARE:
            if groups:
                work(0, groups)  # the rule, for which even to sum up the costs takes long
        else:
            run_groups(work, nanoseconds * (self.sizes[self.order[::WIDTH]] + 1.0) ** power, self.cancelled, longest)
        self.all_done = not self.status.any()
        if not self.all_done and (self.status == NOT_FINITE).any():
            check_finite(self.scores, self._positions(self.scores, self._lengths()))
        if required and not self.all_done and (self.status == NO_STRUCTURE).any():
            raise_no_structure(int(np.flatnonzero(self.status == NO_STRUCTURE)[0]))

    def rest(self, has_structure: Callable[[Tensor, Tensor], Tensor]) -> tuple[np.ndarray, Tensor, Tensor] | None:
        """The rows out of the kernels' range, with their scores and lengths.

        Raises:
            ValueError: one of them has no structure, says `has_structure(scores, lengths)`.
        """
        if self.all_done:
            return None
        rows = np.flatnonzero(self.status == OUT_OF_RANGE)
        if not len(rows):
            return None
        scores, lengths = self.scores[rows], self._lengths()[rows]
        missing = ~has_structure(scores, lengths)
        if missing.any():
            raise_no_structure(int(rows[missing.int().argmax()]))
        return rows, scores, lengths

    def largest_size(self, first: int) -> int:
        """The longest length among the groups from `first` on."""
        return self.sizes.item(self.order.item(first * WIDTH))

    def _lengths(self) -> Tensor:
        return torch.from_numpy(self.sizes)
