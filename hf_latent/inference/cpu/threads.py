"""The batch, split over a few threads.

A pool of our own, not Numba's: its OpenMP layer kills a process that was forked after using it, its workqueue layer one in
which two threads call at once.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

# Below this many elementary steps a batch is done before a thread has started.
SMALLEST_SHARE = 200_000

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=_forget_pool)


def run_batch(work: Callable[[int, int], None], lengths: np.ndarray, steps: float = 1.0) -> None:
    """Calls `work(first, last)` on ranges of rows that cover the batch, with about as many steps each.

    A row of length n is taken to cost `steps` · n³. The number of threads is `torch.get_num_threads()`.
    """
    costs = np.cumsum(steps * (lengths.astype(np.float64) + 1) ** 3)
    batch = len(lengths)
    threads = min(torch.get_num_threads(), batch, int(costs[-1] // SMALLEST_SHARE)) if batch else 0
    if threads <= 1:
        work(0, batch)
        return
    cuts = np.searchsorted(costs, costs[-1] * np.arange(1, threads) / threads) + 1
    bounds = [0, *np.minimum(cuts, batch).tolist(), batch]
    others = [_executor().submit(work, *bounds[share : share + 2]) for share in range(1, threads)]
    work(*bounds[:2])
    for other in others:
        other.result()


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="hf_latent")
    return _pool
