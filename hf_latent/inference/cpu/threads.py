"""The batch, split over a few threads.

A pool of our own, not Numba's: its OpenMP layer kills a process that was forked after using it, its workqueue layer one in
which two threads call at once.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

# A batch that takes fewer nanoseconds than this is done before another thread has started.
SMALLEST_SHARE = 100_000

# How many numbers a thread keeps for the next batch (32 MiB): memory that is new costs as much as what is done with it.
LARGEST_SCRATCH = 2**22

_local = threading.local()
_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=_forget_pool)


def run_groups(work: Callable[[int, int], None], costs: np.ndarray) -> None:
    """Calls `work(first, last)` on ranges that cover the groups, whose `costs` are in nanoseconds, more or less.

    The number of threads is `torch.get_num_threads()`. Each takes a share of what is left when it comes for more, so that
    nobody waits long for one that was held up (by torch's own threads, which spin for a while after their work).
    """
    groups, ends = len(costs), np.cumsum(costs)
    threads = min(torch.get_num_threads(), groups, int(ends[-1] // SMALLEST_SHARE))
    if threads <= 1:
        work(0, groups)
        return
    lock, done = threading.Lock(), 0

    def take() -> None:
        nonlocal done
        while True:
            with lock:
                first, before = done, ends[done - 1] if done else 0.0
                share = max((ends[-1] - before) / (2 * threads), SMALLEST_SHARE)
                done = last = max(min(first + 1, groups), int(np.searchsorted(ends, before + share, side="right")))
            if first >= groups:
                return
            work(first, last)

    others = [_executor().submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        for other in others:
            other.result()


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="hf_latent")
    return _pool


def scratch(numbers: int) -> np.ndarray:
    """Room for some numbers in float64, uninitialized, at the start of a cache line; this thread's, until it asks again."""
    kept: np.ndarray | None = getattr(_local, "scratch", None)
    if kept is None or len(kept) < numbers:
        room = np.empty(numbers + 8)
        skipped = -room.ctypes.data // 8 % 8
        kept = room[skipped : skipped + numbers]
        if numbers <= LARGEST_SCRATCH:
            _local.scratch = kept
    return kept
