"""Latent trees on a pretrained encoder: what they gain on real language, and what makes them matter.

    pip install 'hf_latent[examples]'
    python examples/pretrained_encoders/reproduce.py matters    --encoder sentence-transformers/all-MiniLM-L6-v2 --data sst2
    python examples/pretrained_encoders/reproduce.py estimators --encoder sentence-transformers/all-MiniLM-L6-v2 --data sst2

`--data` is a folder of train.tsv, dev.tsv and test.tsv (`sentence<TAB>0 or 1`) or, with `--task sick`, of SICK's files. Each
run is kept in a file of its own, so that a command that was stopped goes on where it was.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from resumable_runs import Run, pack, run_all, unpack
from tables import markdown, mean_and_error
from train import train

from hf_latent.files import write_file
from hf_latent.trees import Tree, tree_agreement

ESTIMATORS = ("none", "marginals", "ste_marginals", "perturb_and_map", "sparsemap")
# Of all that is new, to be chosen by validation; the encoder's upper layers learn at a tenth of it.
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
# How many training sentences, and how many epochs: of a few, and of all.
SIZES: dict[str, dict[str, Any]] = {"few": {"examples": 500, "epochs": 10}, "all": {"examples": None, "epochs": 2}}
EMBEDDINGS = {"decoder_input": "embeddings"}
ROOT = {**EMBEDDINGS, "single_root": True}
# What makes a tree matter, one thing after another.
VARIANTS: dict[str, dict[str, Any]] = {
    "no tree": {"row": "none"},
    "a tree beside the encoder's words": {"row": "marginals"},
    "the decoder sees embeddings": {"row": "marginals", "config": EMBEDDINGS},
    "… and one root": {"row": "marginals", "config": ROOT},
    "… and one tree, of ste_marginals": {"row": "ste_marginals", "config": ROOT},
    "… of perturb_and_map": {"row": "perturb_and_map", "config": ROOT},
    "… and near heads": {"row": "ste_marginals", "config": {**ROOT, "distance_penalty": 1.0}},
    "… and a bonus on the entropy": {
        "row": "ste_marginals",
        "config": {**ROOT, "distance_penalty": 1.0},
        "entropy_bonus": (0.1, 0.0, 0.5),
    },
    "no tree, embeddings alone": {"row": "none", "config": EMBEDDINGS},
}


def run_of(arguments: argparse.Namespace, seed: int, size: str, learning_rate: float, **more: Any) -> Run:
    rates = {"learning_rate": learning_rate, "encoder_rate": learning_rate / 10}
    return {"task": arguments.task, "seed": seed, "frozen": arguments.frozen, **SIZES[size], **rates, **more}


def make(arguments: argparse.Namespace, runs: list[Run]) -> list[Run]:
    return run_all(partial(train, arguments.encoder, str(arguments.data)), runs, arguments.output_dir / "runs", arguments.jobs)


def of_each_seed(arguments: argparse.Namespace, size: str, rows: list[dict[str, Any]]) -> list[list[Run]]:
    """For each row, which has the arguments of its runs, the results of all seeds."""
    found = make(arguments, [run_of(arguments, seed, size, **row) for row in rows for seed in arguments.seeds])
    count = len(arguments.seeds)
    return [found[first : first + count] for first in range(0, len(found), count)]


def estimators(arguments: argparse.Namespace) -> str:
    """Each estimator at its best learning rate, which the first seed's validation accuracy chooses."""
    texts = []
    for size in arguments.sizes:
        tried = [(row, rate) for row in arguments.rows for rate in LEARNING_RATES]
        results = make(arguments, [run_of(arguments, arguments.seeds[0], size, rate, row=row) for row, rate in tried])
        by_row: dict[str, dict[float, float]] = {}
        for (row, rate), result in zip(tried, results, strict=True):
            by_row.setdefault(row, {})[rate] = result["accuracy"]["validation"]
        best = {row: max(own, key=lambda rate: own[rate]) for row, own in by_row.items()}
        each = of_each_seed(arguments, size, [{"row": row, "learning_rate": rate} for row, rate in best.items()])
        text = table(list(best), each, {"learning rate": [f"{rate:g}" for rate in best.values()]})
        texts.append(f"{size}: {SIZES[size]}\n\n{text}")
    return "\n".join(texts)


def matters(arguments: argparse.Namespace) -> str:
    """What makes a tree matter, one thing after another, on all training sentences."""
    names = [name for name in VARIANTS if not arguments.variants or name in arguments.variants]
    return table(names, of_each_seed(arguments, "all", [{"learning_rate": 1e-3, **VARIANTS[name]} for name in names]), {})


def table(names: list[str], each: list[list[Run]], more: dict[str, list[str]]) -> str:
    """Of each row's runs, `more` that is known of the row, accuracies, and what their trees are like and worth."""
    accuracies = list(each[0][0]["accuracy"])
    kinds = ("random", "flat", "shuffled")
    shapes = ("depth", "flat", "arc_length")
    head = [*more, *accuracies, *(f"with {kind} trees" for kind in kinds), *shapes, "agreement of seeds"]
    lines = []
    for place, (name, results) in enumerate(zip(names, each, strict=True)):
        line = [name, *(own[place] for own in more.values())]
        line += [mean_and_error([100 * one["accuracy"][part] for one in results]) for part in accuracies]
        if "trees" in results[0]:
            line += [mean_and_error([100 * one["trees"][kind] for one in results]) for kind in kinds]
            line += [
                mean_and_error([(100 if shape == "flat" else 1) * one["shape"][shape] for one in results]) for shape in shapes
            ]
            trees = [[Tree(("",) * len(heads), tuple(heads)) for heads in one["heads"]] for one in results]
            line.append(f"{100 * tree_agreement(trees):.1f}" if len(trees) > 1 else "")
        lines.append(line + [""] * (len(head) + 1 - len(line)))
    return markdown(head, lines)


COMMANDS = {"estimators": estimators, "matters": matters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*COMMANDS, "pack"])
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="a name on the Hub, or a folder")
    parser.add_argument("--data", type=Path, help="the folder of the task's files")
    parser.add_argument("--task", choices=("sst2", "sick"), default="sst2")
    parser.add_argument("--frozen", type=int, default=4, help="layers of the encoder that do not learn, from below")
    parser.add_argument("--rows", nargs="+", default=list(ESTIMATORS), choices=ESTIMATORS)
    parser.add_argument("--variants", nargs="*", help="of `matters`; by default all")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/pretrained_encoders"))
    parser.add_argument("--packed", type=Path, help="a file of runs to begin with, such as results/runs.jsonl.gz")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    arguments = parser.parse_args()
    if arguments.packed is not None:
        unpack(arguments.packed, arguments.output_dir / "runs")
    if arguments.command == "pack":
        pack(arguments.output_dir / "runs", arguments.output_dir / "runs.jsonl.gz")
        return
    if arguments.data is None:
        parser.error("--data: where are the task's files?")
    text = COMMANDS[arguments.command](arguments)
    name = f"{arguments.task}-{arguments.command}"
    write_file(arguments.output_dir / f"{name}.md", text)
    print(text)


if __name__ == "__main__":
    main()
