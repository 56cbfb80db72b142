"""Batches of sentences on the CPU: tensors in and out, the kernels in between, the threads around them."""

import numpy as np
import torch
from torch import Tensor

from hf_latent.inference.active_set import warn_of_gap
from hf_latent.inference.cpu import active_set, arborescence, eisner
from hf_latent.inference.cpu.threads import run_batch

Support = tuple[np.ndarray, np.ndarray]  # the vertices of a projection as heads `(count, n)`, and their weights `(count,)`


def _exact(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float64).contiguous().numpy()


def best_heads(scores: Tensor, lengths: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The head of each word, `(batch, n)`; n + 1 beyond the sentence."""
    values, sizes = _exact(scores), lengths.numpy()
    heads = np.full(values.shape[:2], values.shape[2], np.int64)

    def work(first: int, last: int) -> None:
        size = int(sizes[first:last].max(initial=0)) + 1
        charts = np.empty((6, size, size)) if projective else None
        for row in range(first, last):
            n = sizes[row]
            if projective:
                eisner.best_heads(values[row], n, single_root, charts, heads[row])
            else:
                arborescence.best_heads(values[row], n, single_root, heads[row])

    run_batch(work, sizes)
    return torch.from_numpy(heads)


def sparsemap(
    scores: Tensor, lengths: Tensor, projective: bool, single_root: bool, tolerance: float, max_iterations: int
) -> tuple[Tensor, list[Support]]:
    """The projection `(batch, n, n + 1)` in float64, and what each row of it is made of."""
    values, sizes = _exact(scores), lengths.numpy()
    point = np.zeros_like(values)
    supports: list[Support] = [(np.empty((0, 0), np.int32), np.empty(0))] * len(sizes)
    converged = np.ones(len(sizes), np.bool_)

    def work(first: int, last: int) -> None:
        for row in range(first, last):
            if sizes[row]:
                vertices, weights, _, converged[row] = active_set.project(
                    values[row], sizes[row], projective, single_root, tolerance, max_iterations
                )
                active_set.combine(vertices, weights, point[row])
                supports[row] = vertices, weights

    run_batch(work, sizes, steps=50)
    if not converged.all():
        warn_of_gap(max_iterations)
    return torch.from_numpy(point).clamp_(0, 1), supports


def sparsemap_derivative(supports: list[Support], direction: Tensor) -> Tensor:
    """The change of the projection when the scores move along `direction (batch, n, n + 1)`, in float64.

    The Jacobian is symmetric, so this is the vector-Jacobian product as well.
    """
    values = _exact(direction)
    result = np.zeros_like(values)

    def work(first: int, last: int) -> None:
        for row in range(first, last):
            vertices, weights = supports[row]
            active_set.combine(vertices, active_set.direction(vertices, weights, values[row]), result[row])

    run_batch(work, np.array([vertices.shape[1] for vertices, _ in supports], np.int64), steps=5)
    return torch.from_numpy(result)
