"""How fast trees are inferred, beside torch-struct, SuPar and the Eisner of ltp-extension, on the same scores in one run.

    pip install 'hf_latent[benchmarks]'
    python examples/benchmarks/inference.py --output_dir outputs/benchmarks

Prints a table of milliseconds a batch and writes it as JSON. The systems take turns, in blocks of calls; a figure is the median
over all calls. A peer that is not installed is left out. Takes about eight minutes on two cores.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from peers import installed
from torch import Tensor
from tqdm import tqdm

from hf_latent import DependencyTree
from hf_latent.files import write_file
from hf_latent.structures.dependency_tree import conversions

PEERS = {
    "torch-struct": installed("torch_struct"),
    "SuPar": installed("supar.structs"),
    "ltp-extension": installed("ltp_extension.algorithms"),
}
SIZES = [(32, 10), (32, 20), (32, 40), (64, 60), (8, 200)]
OURS = "hf_latent"


class Task(NamedTuple):
    """One operation: for each system, what to call. `backward` says whether the gradient is part of it."""

    operation: str
    trees: str
    backward: bool
    systems: dict[str, Callable[[], Any]]


class Inputs:
    """The same scores `(batch, n, n + 1)` in the layout that each system takes, and weights for gradients."""

    def __init__(self, scores: Tensor) -> None:
        batch, n = scores.shape[:2]
        self.scores, self.leaf = scores, scores.clone().requires_grad_()
        self.lengths = torch.full((batch,), n)
        self.weights = torch.randn(batch, n, n + 1)
        # torch-struct fails on scores that need no gradient.
        self.struct = conversions.to_torch_struct(scores).requires_grad_()
        self.struct_weights = conversions.to_torch_struct(self.weights)
        self.supar, self.supar_leaf = conversions.to_supar(scores), conversions.to_supar(scores).requires_grad_()
        self.supar_weights = conversions.to_supar(self.weights)
        self.flat, self.sizes = self.supar.flatten().tolist(), [n + 1] * batch  # a conversion that is not counted


def gradient(value: Tensor, weight: Tensor, leaf: Tensor) -> Tensor:
    """Of the weighted sum of `value`."""
    return torch.autograd.grad((value * weight).sum(), leaf)[0]


def tasks(scores: Tensor) -> list[Task]:
    """All operations on these scores."""
    inputs = Inputs(scores)
    return [task for projective in (True, False) for task in [*argmaxes(inputs, projective), *sums(inputs, projective)]]


def task_of(operation: str, projective: bool, ours: Callable, backward: bool = False, **peers: Callable) -> Task:
    """One operation, for the peers that are installed."""
    theirs = {name.replace("_", "-"): call for name, call in peers.items()}
    there = {name: call for name, call in theirs.items() if PEERS[name]}
    return Task(operation, "projective" if projective else "non-projective", backward, {OURS: ours, **there})


def struct_of(inputs: Inputs, projective: bool) -> Any:
    """torch-struct's distribution."""
    name = "DependencyCRF" if projective else "NonProjectiveDependencyCRF"
    return getattr(PEERS["torch-struct"], name)(inputs.struct, inputs.lengths, multiroot=True)


def supar_of(inputs: Inputs, projective: bool, leaf: bool = False, multiroot: bool = True) -> Any:
    """SuPar's distribution."""
    kind = getattr(PEERS["SuPar"], "DependencyCRF" if projective else "MatrixTree")
    return kind(inputs.supar_leaf if leaf else inputs.supar, inputs.lengths, multiroot=multiroot)


def argmaxes(inputs: Inputs, projective: bool) -> list[Task]:
    """Best trees, several of them, and projections, which are made of them."""
    tree, single = DependencyTree(projective), DependencyTree(projective, single_root=True)
    scores, leaf = inputs.scores, inputs.leaf
    only_projective: dict[str, Callable] = {}
    only_single: dict[str, Callable] = {}
    if projective:
        only_projective = {"torch_struct": lambda: struct_of(inputs, True).argmax}
        only_single = {"ltp_extension": lambda: PEERS["ltp-extension"].eisner(inputs.flat, inputs.sizes, False)}
    return [
        task_of(
            "argmax",
            projective,
            lambda: tree.argmax(scores),
            **only_projective,
            SuPar=lambda: supar_of(inputs, projective).argmax,
        ),
        task_of(
            "argmax, single root",
            projective,
            lambda: single.argmax(scores),
            SuPar=lambda: supar_of(inputs, projective, multiroot=False).argmax,
            **only_single,
        ),
        task_of(
            "5 best", projective, lambda: tree.top_k(scores, k=5), torch_struct=lambda: struct_of(inputs, projective).topk(5)
        ),
        task_of("SparseMAP", projective, lambda: tree.sparsemap(scores)),
        task_of("SparseMAP", projective, lambda: gradient(tree.sparsemap(leaf), inputs.weights, leaf), backward=True),
    ]


def sums(inputs: Inputs, projective: bool) -> list[Task]:
    """Log-partitions, and what follows from them."""
    tree, scores, leaf = DependencyTree(projective), inputs.scores, inputs.leaf
    return [
        task_of(
            "log-partition",
            projective,
            lambda: tree.log_partition(scores),
            torch_struct=lambda: struct_of(inputs, projective).partition,
            SuPar=lambda: supar_of(inputs, projective).log_partition,
        ),
        task_of(
            "log-partition",
            projective,
            lambda: torch.autograd.grad(tree.log_partition(leaf).sum(), leaf),
            backward=True,
            torch_struct=lambda: torch.autograd.grad(struct_of(inputs, projective).partition.sum(), inputs.struct),
            SuPar=lambda: torch.autograd.grad(supar_of(inputs, projective, leaf=True).log_partition.sum(), inputs.supar_leaf),
        ),
        task_of(
            "marginals",
            projective,
            lambda: tree.marginals(scores),
            torch_struct=lambda: struct_of(inputs, projective).marginals,
            SuPar=lambda: supar_of(inputs, projective).marginals,
        ),
        task_of(
            "marginals",
            projective,
            lambda: gradient(tree.marginals(leaf), inputs.weights, leaf),
            backward=True,
            torch_struct=lambda: gradient(struct_of(inputs, projective).marginals, inputs.struct_weights, inputs.struct),
            SuPar=lambda: gradient(supar_of(inputs, projective, leaf=True).marginals, inputs.supar_weights, inputs.supar_leaf),
        ),
        task_of(
            "entropy",
            projective,
            lambda: tree.entropy(scores),
            torch_struct=lambda: struct_of(inputs, projective).entropy,
            SuPar=lambda: supar_of(inputs, projective).entropy,
        ),
        task_of(
            "sample",
            projective,
            lambda: tree.sample(scores),
            torch_struct=lambda: struct_of(inputs, projective).sample((1,)),
        ),
    ]


def measure(task: Task, seconds: float) -> dict[str, float | str]:
    """The median time of a call in milliseconds for each system, or the error that it ends with."""
    result: dict[str, float | str] = {}
    times: dict[str, list[float]] = {}
    for name, call in task.systems.items():
        try:
            start = time.perf_counter()
            if call() is None:
                raise ValueError("returns None")
            call()
            times[name] = [time.perf_counter() - start]
        except Exception as error:  # a peer's, which are of any kind
            result[name] = f"fails: {type(error).__name__}"
    for _ in range(3):
        for name in times:
            time.sleep(0.02)  # torch's threads go on spinning after the last system's work
            call, until = task.systems[name], time.perf_counter() + seconds / 3 / len(times)
            call()  # wakes the processor
            block = []
            while not block or (time.perf_counter() < until and len(block) < 300):
                start = time.perf_counter()
                call()
                block.append(time.perf_counter() - start)
            times[name] += block
    return result | {name: statistics.median(some[1:]) * 1000 for name, some in times.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """The figures, aligned: ours in milliseconds, and how many times as long each peer takes."""
    lines = [["trees", "operation", "batch × n", OURS, *(cell for peer in PEERS for cell in (peer, "ratio"))]]
    for row in rows:
        operation = row["operation"] + (" + backward" if row["backward"] else "")
        ours = row["milliseconds"][OURS]
        cells = [row["trees"], operation, f"{row['batch']} × {row['n']}", f"{ours:.3f} ms"]
        for peer in PEERS:
            theirs = row["milliseconds"].get(peer)
            if isinstance(theirs, float):
                cells += [f"{theirs:.2f} ms", f"{theirs / ours:.1f}×"]
            else:
                cells += ["fails" if theirs else "-", ""]
        lines.append(cells)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = []
    for place, line in enumerate(lines):
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        if place and lines[place - 1][:2] != line[:2]:
            aligned.append("-" * (sum(widths) + 2 * len(widths) - 2))
        aligned.append("  ".join(cells).rstrip())
    return "\n".join(aligned)


def growth(rows: list[dict[str, Any]]) -> str:
    """How time a sentence grows from n to 2n: 2^3 = 8 for a cubic algorithm without any fixed cost."""
    lines = ["Time a sentence at n = 40 over n = 20 (a cubic algorithm: 8×):"]
    per_sentence = {
        (row["trees"], row["operation"], row["backward"], row["n"], system): value / row["batch"]
        for row in rows
        for system, value in row["milliseconds"].items()
        if isinstance(value, float)
    }
    for trees, operation, backward, n, system in per_sentence:
        if n == 40 and (trees, operation, backward, 20, system) in per_sentence:
            ratio = per_sentence[trees, operation, backward, 40, system] / per_sentence[trees, operation, backward, 20, system]
            name = f"{trees} {operation}{' + backward' if backward else ''}"
            lines.append(f"  {name:45} {system:14} {ratio:5.1f}×")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--seconds", type=float, default=1.5, help="for each operation at each size")
    parser.add_argument("--sizes", nargs="+", default=[f"{batch}x{n}" for batch, n in SIZES], help="such as 32x20")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peers'
    for peer, module in PEERS.items():
        if module is None:
            print(f"{peer} is not installed and is left out: pip install 'hf_latent[benchmarks]'")
    rows = []
    for size in arguments.sizes:
        batch, n = map(int, size.split("x"))
        torch.manual_seed(arguments.seed)
        for task in tqdm(tasks(torch.randn(batch, n, n + 1)), desc=f"{batch} × {n}", unit="operation"):
            milliseconds = measure(task, arguments.seconds)
            rows.append({"batch": batch, "n": n, **task._asdict(), "milliseconds": milliseconds})
            del rows[-1]["systems"]
    rows.sort(key=lambda row: (row["trees"] != "projective", row["operation"], row["backward"], row["n"]))
    machine = {
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    text = f"{table(rows)}\n\n{growth(rows)}"
    write_file(arguments.output_dir / "inference.json", json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    write_file(arguments.output_dir / "inference.txt", text + "\n")
    print(f"{text}\n\n{machine}\nWritten to {arguments.output_dir}")


if __name__ == "__main__":
    main()
