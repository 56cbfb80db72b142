"""The kernels behind the contract of all algorithms; what needs sorting alone is as in the reference."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_latent.inference.cpu.batch import array
from hf_latent.inference.cpu.threads import run_groups
from hf_latent.structures.subset import selection
from hf_latent.structures.subset.cpu import kernels
from hf_latent.structures.subset.cpu.kernels import LONGEST
from hf_latent.structures.subset.reference import SubsetReference


class SubsetKernels(SubsetReference):
    """Of `Subset`, on the CPU; rows of more than `LONGEST` items are the reference's, whose sums are logarithms."""

    def log_partition(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """`(batch,)` in float64."""
        if scores.shape[1] > LONGEST:
            return super().log_partition(structure, scores, lengths)
        own = selection.weights(structure, scores, lengths)
        return own.offsets + _call(kernels.log_partition, 2.0, own, lengths, (), (len(scores),))

    def marginals(self, structure: Any, scores: Tensor, lengths: Tensor) -> Tensor:
        """`(batch, n)` in float64."""
        if scores.shape[1] > LONGEST:
            return super().marginals(structure, scores, lengths)
        own = selection.weights(structure, scores, lengths)
        return _call(kernels.marginals, 5.0, own, lengths, (), tuple(scores.shape))

    def marginals_derivative(self, structure: Any, scores: Tensor, lengths: Tensor, direction: Tensor) -> Tensor:
        """The derivative of the marginals along a `direction`."""
        if scores.shape[1] > LONGEST:
            return super().marginals_derivative(structure, scores, lengths, direction)
        own, along = selection.weights(structure, scores, lengths), array(direction.double())
        return _call(kernels.marginals_derivative, 12.0, own, lengths, (along,), tuple(scores.shape))


def _call(
    kernel: Any,
    nanoseconds: float,
    own: selection.Weights,
    lengths: Tensor,
    inputs: tuple[np.ndarray, ...],
    shape: tuple[int, ...],
) -> Tensor:
    """What a kernel writes; it takes about so many `nanoseconds` for each item and number of items."""
    values, sizes = [array(one.exp()) for one in own[:3]], lengths.numpy().copy()
    most = own.most.numpy()
    out, cancelled = np.zeros(shape), np.zeros(1, np.bool_)

    def work(first: int, last: int) -> None:
        kernel(*values, sizes, most, *inputs, first, last, out, cancelled)

    if len(sizes):
        run_groups(work, nanoseconds * (sizes + 1.0) * (most + 1.0), cancelled)
    return torch.from_numpy(out)
