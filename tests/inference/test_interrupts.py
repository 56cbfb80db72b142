"""Ctrl-C: a KeyboardInterrupt within a second, whatever runs; and work where the main thread is at its end."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch

from hf_latent import DependencyTree
from hf_latent.inference.cpu import compiling, threads
from hf_latent.structures.dependency_tree.reference.trees import TreeReference

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

PROJECTIVE, OTHER = DependencyTree(), DependencyTree(projective=False, single_root=True)
LONG = torch.randn(1, 300, 301).expand(400, -1, -1)
NEARLY_EQUAL = 1e-3 * torch.randn(16, 60, 61)


def backward(value: torch.Tensor) -> object:
    value.sum().backward()
    return value


def slow_to_compile(values):
    return values.sum()


def compile_slowly() -> None:
    kernel = compiling.Kernel(slow_to_compile)
    compile_it = kernel.dispatcher.compile
    kernel.dispatcher.compile = lambda signature: (time.sleep(3), compile_it(signature))[1]
    kernel(np.ones(3))


OPERATIONS = {
    "argmax": lambda: PROJECTIVE.argmax(LONG),
    "argmax of a non-projective tree": lambda: [OTHER.argmax(LONG) for _ in range(100)],
    "log-partition": lambda: PROJECTIVE.log_partition(LONG),
    "marginals": lambda: PROJECTIVE.marginals(LONG),
    "marginals, non-projective": lambda: OTHER.marginals(LONG),
    "samples": lambda: PROJECTIVE.sample(NEARLY_EQUAL, None, 5000),
    "samples, non-projective": lambda: OTHER.sample(NEARLY_EQUAL, None, 5000),
    "SparseMAP": lambda: PROJECTIVE.sparsemap(NEARLY_EQUAL, tol=1e-9),
    "SparseMAP, non-projective": lambda: OTHER.sparsemap(NEARLY_EQUAL, tol=1e-9),
    "SparseMAP of small batches": lambda: [PROJECTIVE.sparsemap(NEARLY_EQUAL[:2, :5, :6]) for _ in range(100_000)],
    "projection nearby": lambda: PROJECTIVE.project_from_marginals(LONG[:64, :100, :101], LONG[:64, :100, :101]),
    "the best trees": lambda: PROJECTIVE.top_k(NEARLY_EQUAL, None, 1000),
    "backward": lambda: backward(PROJECTIVE.log_partition(LONG[:1].clone().requires_grad_().expand(400, -1, -1))),
    "the reference": lambda: TreeReference().marginals(PROJECTIVE, LONG[:4], torch.full((4,), 300)),
    "compiling": compile_slowly,
}


@pytest.fixture(scope="module")
def all_are_compiled():
    few = NEARLY_EQUAL[:, :12, :13]
    for name in ("argmax", "log_partition", "marginals", "sample", "sparsemap", "top_k"):
        getattr(PROJECTIVE, name)(few)
    PROJECTIVE.project_from_marginals(few, few)


@pytest.fixture
def interrupted(all_are_compiled):
    """Runs something that is interrupted after a while; how many seconds after that the interrupt came."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)

    def run(work, after: float) -> float:
        signal.setitimer(signal.ITIMER_REAL, after)
        start = time.perf_counter()
        try:
            work()
        except KeyboardInterrupt:
            return time.perf_counter() - start - after
        return pytest.fail("ended before it was interrupted")

    yield run
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def seconds_of_work(seconds: float) -> float:
    start = time.process_time()
    time.sleep(seconds)
    return time.process_time() - start


@pytest.mark.parametrize("number_of_threads", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_interrupt_comes_within_a_second(interrupted, operation, number_of_threads):
    expected, before = PROJECTIVE.sparsemap(NEARLY_EQUAL[:4, :20, :21]), torch.get_num_threads()
    torch.set_num_threads(number_of_threads)
    try:
        assert interrupted(OPERATIONS[operation], 0.15) < 1
        start = time.perf_counter()
        while seconds_of_work(0.1) > 0.05:
            assert time.perf_counter() - start < 5, "the work goes on"
        assert torch.equal(PROJECTIVE.sparsemap(NEARLY_EQUAL[:4, :20, :21]), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_an_interrupt_comes_through_a_compiled_graph(interrupted, backend):
    compiled = torch.compile(lambda scores: PROJECTIVE.sparsemap(scores, tol=1e-9) * 2, backend=backend, fullgraph=True)
    # What compiles is torch: an interrupt that comes in one of its callbacks is lost, as in any callback of Python.
    for scores in (NEARLY_EQUAL[:, :4, :5], NEARLY_EQUAL[:, :5, :6], 1e4 * NEARLY_EQUAL):
        compiled(scores)
    assert interrupted(lambda: compiled(NEARLY_EQUAL), 0.3) < 1


def test_a_kernel_whose_compiling_was_interrupted_is_compiled_all_the_same(interrupted):
    kernel = compiling.Kernel(slow_to_compile)
    compile_it, calls = kernel.dispatcher.compile, []
    kernel.dispatcher.compile = lambda signature: (calls.append(time.sleep(0.5)), compile_it(signature))[1]
    assert interrupted(lambda: kernel(np.ones(3)), 0.1) < 0.4
    assert kernel(np.ones(3)) == 3


def test_an_error_of_a_kernel_is_raised_by_whoever_called_it():
    def work(first: int, last: int) -> None:
        raise MemoryError("no room")

    for cost in (1.0, 1e10):
        with pytest.raises(MemoryError, match="no room"):
            threads.run_groups(work, np.full(4, cost), np.zeros(1, np.bool_))


def test_where_no_thread_can_be_started_the_caller_does_the_work(monkeypatch):
    def cannot_start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_pool", threads._Pool())
    monkeypatch.setattr(threading.Thread, "start", cannot_start)
    seen: list[int] = []
    threads.run_groups(lambda first, last: seen.extend(range(first, last)), np.full(20, 1e10), np.zeros(1, np.bool_))
    assert seen == list(range(20))
    assert threads.run_interruptibly(lambda: 3) == 3


@pytest.mark.parametrize("most", [1, 3])
def test_every_group_is_worked_on_once_however_many_call(monkeypatch, most):
    pool = threads._Pool()
    pool._most = most
    monkeypatch.setattr(threads, "_pool", pool)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    results: list[list[int]] = [[] for _ in range(8)]
    callers = [
        threading.Thread(
            target=threads.run_groups,
            args=(partial(lambda found, first, last: found.extend(range(first, last)), found), np.full(200, 1e5), np.zeros(1)),
        )
        for found in results
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(sorted(found) == list(range(200)) for found in results)
    assert pool._count <= most


def run(code: str) -> subprocess.CompletedProcess[str]:
    start = "import atexit, os, signal, threading, time, torch\nfrom hf_latent import DependencyTree\ntree = DependencyTree()\n"
    return subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=120
    )


def test_a_thread_and_an_exit_handler_outlive_the_main_thread():
    done = run("""
        torch.set_num_threads(2)
        def work(name):
            if threading.current_thread() is not threading.main_thread():
                threading.main_thread().join()
            print(name, tree.marginals(torch.zeros(64, 30, 31)).shape, tree.sparsemap(torch.randn(64, 15, 16)).shape)
        atexit.register(work, "handler")
        threading.Thread(target=work, args=("thread",)).start()
    """)
    assert done.returncode == 0, done.stderr
    shapes = "torch.Size([64, 30, 31]) torch.Size([64, 15, 16])"
    assert done.stdout.splitlines() == [f"thread {shapes}", f"handler {shapes}"]


def test_a_process_that_is_interrupted_ends_at_once():
    """By the signal itself, while a worker of ours is busy."""
    done = run("""
        scores = 1e-3 * torch.randn(64, 60, 61)
        tree.sparsemap(scores[:, :3, :4])
        threading.Timer(0.5, lambda: (print(time.time(), flush=True), os.kill(os.getpid(), signal.SIGINT))).start()
        tree.sparsemap(scores, tol=1e-9)
    """)
    assert time.time() - float(done.stdout) < 40, "it went on to the end, which takes more than a minute"
    assert done.returncode == -signal.SIGINT
    assert done.stderr.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert "SystemError" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_works_that_was_forked_while_others_were_busy():
    """Another thread forks while the main one waits for ours."""
    done = run("""
        results = []
        def fork():
            time.sleep(0.3)
            if (child := os.fork()) == 0:
                print(tree.sparsemap(1e-3 * torch.randn(32, 20, 21)).shape, flush=True)
                os._exit(3)
            results.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        scores = 1e-3 * torch.randn(16, 40, 41)
        tree.sparsemap(scores[:, :3, :4])
        thread = threading.Thread(target=fork)
        thread.start()
        tree.sparsemap(scores)
        thread.join()
        print(results)
    """)
    assert done.stdout.splitlines() == ["torch.Size([32, 20, 21])", "[3]"], done.stderr
