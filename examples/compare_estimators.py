r"""Train the same classifier with several estimators and seeds, and tabulate them.

    python examples/compare_estimators.py --output_dir outputs/sst2 --estimators none marginals spigot --seeds 1 2 3 -- \
        --train_file train.tsv --validation_file dev.tsv --test_file test.tsv --word_vectors glove.6B.100d.txt.gz

What stands behind `--` goes to `text_classification.py`, or to the script that `--script` names. With several
`--learning_rates`, the table has that with the best mean validation accuracy for each estimator. Finished runs are kept in the
output folder and not repeated, so that the command can be stopped and given again. Ends with `results.json` and `results.md`.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from hf_latent import list_estimators
from hf_latent.files import write_file

SCRIPTS = ["text_classification", "natural_language_inference"]


def run(script: str, output_dir: Path, estimator: str, seed: int, learning_rate: float | None, arguments: list[str]) -> dict:
    """The results of one training run, from the folder if it is there already."""
    folder = output_dir / (f"{estimator}-{seed}" + ("" if learning_rate is None else f"-{learning_rate:g}"))
    results, command_file = folder / "results.json", folder / "command.txt"
    command = [
        sys.executable,
        str(Path(__file__).with_name(f"{script}.py")),
        "--estimator",
        estimator,
        "--seed",
        str(seed),
        "--output_dir",
        str(folder),
        *([] if learning_rate is None else ["--learning_rate", f"{learning_rate:g}"]),
        *arguments,
    ]
    written = shlex.join(["python", f"examples/{script}.py", *command[2:]])
    if results.is_file():
        if command_file.read_text().strip() != written:
            raise SystemExit(f"{folder} holds a run with other arguments: choose another --output_dir, or remove it.")
        return _with_command(results, written)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(command_file, written + "\n")
    with (folder / "log.txt").open("w") as log:
        finished = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if finished.returncode:
        tail = "\n".join((folder / "log.txt").read_text(errors="replace").splitlines()[-5:])
        raise SystemExit(f"Training with {estimator!r}, seed {seed}, failed:\n{tail}\nThe whole log is {folder / 'log.txt'}.")
    return _with_command(results, written)


def _with_command(results: Path, command: str) -> dict:
    return {**json.loads(results.read_text()), "command": command}


def chosen(runs: list[dict]) -> list[dict]:
    """Of one estimator's runs, those with the learning rate that does best on validation, in the mean."""
    rates = sorted({run["learning_rate"] for run in runs})

    def validation(rate: float) -> float:
        return statistics.mean(run["validation_accuracy"] for run in runs if run["learning_rate"] == rate)

    best = max(rates, key=validation)
    return [run for run in runs if run["learning_rate"] == best]


def table(results: list[dict]) -> str:
    """Mean ± standard error over the seeds, a row an estimator, in Markdown."""
    lines = ["| estimator | learning rate | validation accuracy | test accuracy |", "|:--|--:|--:|--:|"]
    for estimator in dict.fromkeys(result["estimator"] for result in results):
        runs = chosen([result for result in results if result["estimator"] == estimator])
        cells = [
            mean_and_error([100 * result[name] for result in runs if name in result])
            for name in ("validation_accuracy", "test_accuracy")
        ]
        lines.append(f"| {estimator:15} | {runs[0]['learning_rate']:g} | {cells[0]:>12} | {cells[1]:>12} |")
    return "\n".join(lines)


def mean_and_error(values: list[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {error:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--estimators", nargs="+", default=["none", *list_estimators()])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--learning_rates", type=float, nargs="+", help="to choose from, by validation accuracy")
    parser.add_argument("--script", choices=SCRIPTS, default=SCRIPTS[0])
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at once")
    arguments, rest = parser.parse_known_args()
    rest = [argument for argument in rest if argument != "--"]
    unknown = set(arguments.estimators) - {"none", *list_estimators()}
    if unknown:
        parser.error(f"unknown estimator {sorted(unknown)[0]!r}; the known ones are none, {', '.join(list_estimators())}")
    rates = arguments.learning_rates or [None]
    jobs = [(estimator, seed, rate) for rate in rates for seed in arguments.seeds for estimator in arguments.estimators]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = pool.map(lambda job: run(arguments.script, arguments.output_dir, *job, rest), jobs)
        results = list(tqdm(runs, total=len(jobs), desc="Training runs"))
    results.sort(key=lambda result: (arguments.estimators.index(result["estimator"]), result["seed"]))
    write_file(arguments.output_dir / "results.json", json.dumps(results, indent=2) + "\n")
    write_file(arguments.output_dir / "results.md", table(results) + "\n")
    print(f"\n{table(results)}\n\nWritten to {arguments.output_dir / 'results.json'} and results.md.")


if __name__ == "__main__":
    main()
