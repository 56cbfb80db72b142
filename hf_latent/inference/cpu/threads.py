"""The batch, split over a few threads, and what may take long in threads other than the main one, which Ctrl-C can then end.

A pool of our own, not Numba's: its OpenMP layer kills a process that was forked after using it, its workqueue layer one in
which two threads call at once. Its threads are daemons, unlike those of `concurrent.futures`: they serve also when the main
thread has ended, and the interpreter does not wait for what was interrupted.
"""

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

# A batch that takes fewer nanoseconds than this is done before another thread has started.
SMALLEST_SHARE = 100_000

# The main thread, which has to answer to Ctrl-C, does not itself do what may take more nanoseconds than this.
LONGEST_IN_MAIN_THREAD = 50_000_000

# How long a wait lasts at a time, in seconds: signals are looked at in between.
PULSE = 0.1

# How many numbers a thread keeps for the next batch (32 MiB): memory that is new costs as much as what is done with it.
LARGEST_SCRATCH = 2**22

_local = threading.local()


class _Pool:
    """Daemon threads, started when they are needed."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle, self._lock, self._count = threading.Semaphore(0), threading.Lock(), 0
        # More than there are processors, as some may still be at what was interrupted.
        self._most = 2 * (os.cpu_count() or 1)

    def submit(self, job: Callable[[], None]) -> bool:
        """Has a thread call `job`, which must not raise; False if there is none, and none can be started."""
        if not self._idle.acquire(blocking=False):
            with self._lock:
                if self._count < self._most:
                    try:
                        threading.Thread(target=self._serve, name="hf_latent", daemon=True).start()
                        self._count += 1
                    except RuntimeError:  # the limit of the system, or an interpreter that shuts down
                        if not self._count:
                            return False
        self._jobs.put(job)
        return True

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            job()
            del job  # and what it holds
            self._idle.release()


_pool = _Pool()


def _renew_pool() -> None:
    global _pool
    _pool = _Pool()


# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=_renew_pool)


def _is_main() -> bool:
    """Whether Ctrl-C interrupts this thread."""
    return threading.current_thread() is threading.main_thread()


def _wait(event: threading.Event) -> None:
    while not event.wait(PULSE):
        pass


class _Shares:
    """Ranges of groups, which several threads take until none is left."""

    def __init__(self, work: Callable[[int, int], None], ends: np.ndarray, threads: int) -> None:
        self._work, self._ends, self._threads = work, ends, threads
        self._lock, self._taken, self._finished = threading.Lock(), 0, 0
        self._error: BaseException | None = None
        self._ended = threading.Event()

    def take(self) -> None:
        """Works for as long as there is something left.

        Each time for a share of what is left, so that nobody waits long for a thread that was held up (by torch's own threads,
        which spin for a while after their work).
        """
        groups, ends = len(self._ends), self._ends
        while True:
            with self._lock:
                first, before = self._taken, ends[self._taken - 1] if self._taken else 0.0
                share = max((ends[-1] - before) / (2 * self._threads), SMALLEST_SHARE)
                last = max(min(first + 1, groups), int(np.searchsorted(ends, before + share, side="right")))
                self._taken = last
            if first >= groups:
                return
            try:
                self._work(first, last)
            except BaseException as error:
                self._error = error
            with self._lock:
                self._finished += last - first
            if self._finished == groups or self._error is not None:
                self._ended.set()

    def wait(self) -> None:
        """Until all is done; raises what the work did."""
        _wait(self._ended)
        if self._error is not None:
            raise self._error


def run_groups(work: Callable[[int, int], None], costs: np.ndarray, cancelled: np.ndarray, longest: float = 1.0) -> None:
    """Calls `work(first, last)` on ranges that cover the groups, whose `costs` are in nanoseconds, more or less.

    The number of threads is `torch.get_num_threads()`. What may be `longest` times as long as it costs by rule, and thus too
    long for the main thread, is all handed to others: a Ctrl-C then raises at once, and sets `cancelled (1,)`, at which the
    work that goes on without anybody waiting should end.
    """
    groups, ends = len(costs), np.cumsum(costs)
    threads = max(min(torch.get_num_threads(), groups, int(ends[-1] // SMALLEST_SHARE)), 1)
    hands_over = ends[-1] * longest > LONGEST_IN_MAIN_THREAD and _is_main()
    if threads == 1 and not hands_over:
        work(0, groups)
        return
    shares = _Shares(work, ends, threads)
    try:
        helped = [_pool.submit(shares.take) for _ in range(threads if hands_over else threads - 1)]
        if not hands_over or not any(helped):
            shares.take()
        shares.wait()
    except BaseException:
        cancelled[0] = True
        raise


def run_interruptibly(work: Callable[[], Any]) -> Any:
    """What `work` returns. In the main thread, Ctrl-C leaves it to another thread to end it, and raises at once."""
    if not _is_main():
        return work()
    results: list[Any] = []
    shares = _Shares(lambda first, last: results.append(work()), np.ones(1), 1)
    if not _pool.submit(shares.take):
        shares.take()
    shares.wait()
    return results[0]


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
