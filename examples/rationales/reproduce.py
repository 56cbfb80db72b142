"""Sentiment by a fifth of the words: what each estimator chooses, beside attention and gradients of a model that sees all.

    pip install 'hf_latent[examples]'
    python examples/rationales/reproduce.py table --data sst-trees --word_vectors glove.6B.100d.txt.gz

`--data` is a folder of train.txt.gz, dev.txt.gz and test.txt.gz, the Stanford Sentiment Treebank with its labels of phrases,
of which those of whole sentences are learned from, and those of words are what choices are compared with. With `--encoder`,
a transformer takes the place of the word vectors. Each run is kept in a file of its own, so that a command that was stopped
goes on where it was.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from resumable_runs import Run, pack, run_all, unpack
from tables import markdown, mean_and_error
from train import train

from hf_latent import list_estimators
from hf_latent.files import write_file

# That of `none` and of `ste_marginals` is chosen by accuracy on validation data, with the first seed; the second is taken for
# all other estimators.
LEARNING_RATES = (1e-3, 3e-3)
# These are run with all seeds, the others with the first alone.
WITH_ALL_SEEDS = ("none", "marginals", "ste_marginals", "perturb_and_map", "sparsemap", "score_function")
ROWS = ("none", *(name for name in list_estimators() if name not in ("reinmax", "expected_loss")))
STEPS = {"word vectors": 600, "transformer": 400}
COLUMNS = ("accuracy", "precision", "recall", "comprehensiveness", "sufficiency")


def run_of(arguments: argparse.Namespace, row: str, seed: int, learning_rate: float) -> Run:
    return {
        "encoder": arguments.kind,
        "row": row,
        "seed": seed,
        "learning_rate": learning_rate,
        "steps": arguments.steps or STEPS[arguments.kind],
        "splits": "apart",  # those of before learned from the sentences of validation as well
    }


def make(arguments: argparse.Namespace, runs: list[Run]) -> list[Run]:
    sources = {"word vectors": str(arguments.word_vectors), "transformer": arguments.encoder}
    return run_all(partial(train, sources, str(arguments.data)), runs, arguments.output_dir / "runs", arguments.jobs)


def chosen(arguments: argparse.Namespace) -> dict[str, float]:
    """The learning rate of each row."""
    tried = [(row, rate) for row in ("none", "ste_marginals") for rate in LEARNING_RATES]
    results = make(arguments, [run_of(arguments, row, arguments.seeds[0], rate) for row, rate in tried])
    quality = {key: accuracy(result) for key, result in zip(tried, results, strict=True)}
    best = {row: max(LEARNING_RATES, key=lambda rate: quality[row, rate]) for row in ("none", "ste_marginals")}
    return {row: best.get(row, best["ste_marginals"]) for row in arguments.rows}


def accuracy(result: Run) -> float:
    """On validation data: by the model's own choice, or by all words where it makes none."""
    found = result["validation"]
    return found["own"]["accuracy"] if "own" in found else found["random"]["accuracy with all words"]


def table(arguments: argparse.Namespace) -> str:
    rates = chosen(arguments)
    seeds = {row: arguments.seeds if row in WITH_ALL_SEEDS else arguments.seeds[:1] for row in arguments.rows}
    wanted = {row: [run_of(arguments, row, seed, rates[row]) for seed in seeds[row]] for row in arguments.rows}
    results = iter(make(arguments, [run for runs in wanted.values() for run in runs]))
    found = {row: [next(results) for _ in runs] for row, runs in wanted.items()}
    lines = []
    for row, runs in found.items():
        tests = [run["test"] for run in runs]
        if "own" not in tests[0]:
            whole = mean_and_error([one["random"]["accuracy with all words"] for one in tests])
            lines.append(["all words", str(len(runs)), whole, *[""] * (len(COLUMNS) - 1)])
        for way in tests[0]:
            name = f"`{row}`" if way == "own" else f"all words, then a fifth by {way}"
            values = [mean_and_error([one[way][column] for one in tests]) for column in COLUMNS]
            lines.append([name, str(len(runs)), *values])
    text = markdown(["seeds", *COLUMNS], lines)
    text += "\nLearning rates: " + ", ".join(f"{row} {rate:g}" for row, rate in rates.items()) + ".\n"
    write_file(arguments.output_dir / "table.json", json.dumps(found, indent=1) + "\n")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["table", "pack"])
    parser.add_argument("--data", type=Path, help="the folder of the treebank's files")
    parser.add_argument("--word_vectors", type=Path, help="in GloVe's text format, plain or gzipped")
    parser.add_argument("--encoder", help="in place of these: a transformer's name on the Hub, or its folder")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--steps", type=int, help="of training; by default 600, or 400 for a transformer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/rationales"))
    parser.add_argument("--packed", type=Path, help="a file of runs to begin with, such as results/runs.jsonl.gz")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    arguments = parser.parse_args()
    arguments.kind = "word vectors" if arguments.encoder is None else "transformer"
    if arguments.packed is not None:
        unpack(arguments.packed, arguments.output_dir / "runs")
    if arguments.command == "pack":
        pack(arguments.output_dir / "runs", arguments.output_dir / "runs.jsonl.gz")
        return
    if arguments.data is None or (arguments.word_vectors is None and arguments.encoder is None):
        parser.error("--data, and --word_vectors or --encoder: where are the treebank and the vectors?")
    text = table(arguments)
    write_file(arguments.output_dir / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
