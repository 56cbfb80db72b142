"""A little supervision: parts of speech through a tree, beside no, a few, or all gold trees.

    pip install 'hf_latent[examples]'
    python examples/little_supervision/reproduce.py table --encoder sentence-transformers/all-MiniLM-L6-v2 \
        --train_file en_ewt-ud-train.conllu --test_file en_ewt-ud-dev.conllu

One model, learned in three ways: from gold trees alone, from parts of speech alone (the tree is latent), and from both. Each
run is kept in a file of its own, so that a command that was stopped goes on where it was.
"""

import argparse
import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[1]))
from resumable_runs import Run, pack, run_all, unpack
from tables import markdown, mean_and_error
from train import train

from hf_latent.files import write_file

TREES = (10, 100, 1000, None)
# By validation with 100 trees and the first seed: the learning rate (a tenth of it for the encoder) by the heads of trees
# alone; then, of both, the weight of trees in the loss, by the sum of the two shares.
LEARNING_RATES = (1e-3, 3e-3)
WEIGHTS = (1.0, 3.0, 10.0)
STEPS = 300
COLORS = {"trees": "#8a8a8a", "task": "#c0392b", "both": "#0b6e4f"}
LABELS = {"trees": "trees alone", "task": "parts of speech alone", "both": "both"}


def run_of(kind: str, trees: int | None, seed: int, learning_rate: float, weight: float = 1.0, **others: Any) -> Run:
    own = {"kind": kind, "trees": trees, "seed": seed, "learning_rate": learning_rate, "weight": weight, "steps": STEPS}
    return {**own, **others}


def make(arguments: argparse.Namespace, runs: list[Run]) -> list[Run]:
    files = arguments.encoder, str(arguments.train_file), str(arguments.test_file)
    return run_all(partial(train, *files), runs, arguments.output_dir / "runs", arguments.jobs)


def chosen(arguments: argparse.Namespace) -> tuple[float, float, str]:
    """The learning rate, the weight of trees, and the table of all that were tried."""
    seed = arguments.seeds[0]
    of_rates = make(arguments, [run_of("trees", 100, seed, rate) for rate in LEARNING_RATES])
    heads = [one["validation"]["heads"] for one in of_rates]
    rate = LEARNING_RATES[heads.index(max(heads))]
    of_weights = make(arguments, [run_of("both", 100, seed, rate, weight) for weight in WEIGHTS])
    sums = [sum(one["validation"].values()) for one in of_weights]
    names = [f"trees alone, learning rate {own:g}" for own in LEARNING_RATES]
    names += [f"both, learning rate {rate:g}, weight of trees {own:g}" for own in WEIGHTS]
    lines = [
        [name, *(f"{one['validation'][part]:.1f}" for part in ("heads", "tags"))]
        for name, one in zip(names, of_rates + of_weights, strict=True)
    ]
    return rate, WEIGHTS[sums.index(max(sums))], markdown(["heads (validation)", "parts of speech (validation)"], lines)


def make_all(arguments: argparse.Namespace, wanted: dict[Any, list[Run]]) -> dict[Any, list[Run]]:
    """The results of all runs, under the keys of these."""
    results = iter(make(arguments, [run for runs in wanted.values() for run in runs]))
    return {key: [next(results) for _ in runs] for key, runs in wanted.items()}


def table(arguments: argparse.Namespace) -> None:
    rate, weight, tried = chosen(arguments)
    wanted = {("task", 0): [run_of("task", 0, seed, rate) for seed in arguments.seeds]}
    for trees in TREES:
        wanted["trees", trees] = [run_of("trees", trees, seed, rate) for seed in arguments.seeds]
        wanted["both", trees] = [run_of("both", trees, seed, rate, weight) for seed in arguments.seeds]
    found = make_all(arguments, wanted)
    lines = []
    for trees in (0, *TREES):
        line = ["all" if trees is None else str(trees)]
        for kind, part in (("trees", "heads"), ("both", "heads"), ("both", "tags")):
            own = found.get(("task" if trees == 0 and kind == "both" else kind, trees))
            line.append("" if own is None else mean_and_error([one["test"][part] for one in own]))
        lines.append(line)
    text = markdown(["heads, trees alone", "heads, both", "parts of speech, both"], lines)
    text += f"\nWith 0 trees, both are the task alone. Learning rate {rate:g}, weight of trees {weight:g}, of these:\n\n{tried}"
    write_file(arguments.output_dir / "table.md", text)
    named = {f"{kind}, {'all' if trees is None else trees}": own for (kind, trees), own in found.items()}
    write_file(arguments.output_dir / "table.json", json.dumps(named, indent=1) + "\n")
    plot(found, arguments.output_dir / "table.svg")
    print(text)


def why(arguments: argparse.Namespace) -> None:
    """With 100 trees: twice the steps, in which both see as much of either as one alone; a tree the task does not teach."""
    rate, weight, _ = chosen(arguments)
    kinds: dict[str, tuple[str, int, float, dict[str, Any]]] = {
        "trees alone": ("trees", 100, 1.0, {}),
        "parts of speech alone": ("task", 0, 1.0, {}),
        "both": ("both", 100, weight, {}),
        "both, the tree learns from trees alone": ("both", 100, weight, {"taught": False}),
    }
    wanted = {
        (name, steps): [run_of(kind, trees, seed, rate, own, **{**others, "steps": steps}) for seed in arguments.seeds]
        for name, (kind, trees, own, others) in kinds.items()
        for steps in (STEPS, 2 * STEPS)
    }
    lines = []
    for (name, steps), runs in make_all(arguments, wanted).items():
        heads, tags = (mean_and_error([one["test"][part] for one in runs]) for part in ("heads", "tags"))
        lines.append([f"{name}, {steps} steps", heads, "" if name == "trees alone" else tags])
    text = markdown(["heads", "parts of speech"], lines)
    write_file(arguments.output_dir / "why.md", text)
    print(text)


def plot(found: dict[tuple[str, int | None], list[Run]], file: Path) -> None:
    """Heads and parts of speech over the number of gold trees."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    places = {trees: place for place, trees in enumerate((0, *TREES))}
    for axes, part, title in zip(
        figure.subplots(1, 2), ("heads", "tags"), ("heads that are right, %", "parts of speech that are right, %"), strict=True
    ):
        for kind in ("trees", "both", "task"):
            own = {trees: runs for (name, trees), runs in found.items() if name == kind}
            if part == "tags" and kind == "trees":
                continue
            values = [[one["test"][part] for one in runs] for runs in own.values()]
            means = [statistics.mean(one) for one in values]
            if kind == "task":
                axes.axhline(means[0], color=COLORS[kind], ls="--", label=LABELS[kind])
                continue
            at = [places[trees] for trees in own]
            axes.plot(at, means, "-o", color=COLORS[kind], label=LABELS[kind])
            for place, seeds in zip(at, values, strict=True):
                axes.plot([place] * len(seeds), seeds, ".", color=COLORS[kind], alpha=0.5)
        axes.set_xticks(range(1, len(places)), labels=[*map(str, TREES[:-1]), "all"])
        axes.set(xlabel="sentences with gold trees", title=title)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, loc="center right")
    figure.savefig(file)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["table", "why", "pack"])
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="a name on the Hub, or a folder")
    parser.add_argument("--train_file", type=Path, help="CoNLL-U, plain or gzipped")
    parser.add_argument("--test_file", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/little_supervision"))
    parser.add_argument("--packed", type=Path, help="a file of runs to begin with, such as results/runs.jsonl.gz")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    arguments = parser.parse_args()
    if arguments.command != "pack" and not (arguments.train_file and arguments.test_file):
        parser.error("--train_file and --test_file: where is the treebank?")
    return arguments


def main() -> None:
    arguments = read_arguments()
    if arguments.packed is not None:
        unpack(arguments.packed, arguments.output_dir / "runs")
    if arguments.command == "pack":
        pack(arguments.output_dir / "runs", arguments.output_dir / "runs.jsonl.gz")
    else:
        {"table": table, "why": why}[arguments.command](arguments)


if __name__ == "__main__":
    main()
