"""Where a latent tree wins: expressions learned from short ones, and tested on long ones.

    pip install 'hf_latent[examples]'
    python examples/expressions/reproduce.py listops table      --output_dir outputs/listops --files listops.test_d5f.tsv.gz
    python examples/expressions/reproduce.py listops step_sizes --output_dir outputs/listops
    python examples/expressions/reproduce.py listops ablation   --output_dir outputs/listops
    python examples/expressions/reproduce.py listops baselines  --output_dir outputs/listops
    python examples/expressions/reproduce.py listops gradients  --output_dir outputs/listops
    python examples/expressions/reproduce.py arithmetic table   --output_dir outputs/arithmetic

Each run is kept in a file of its own, so that a command that was stopped goes on where it was. Expressions with operators that
the models were not trained on are left out of `--files`.
"""

import argparse
import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from gradients import gradients
from plots import plot
from tasks import TASKS
from train import train

from hf_latent import list_estimators
from hf_latent.files import write_file

sys.path.append(str(Path(__file__).parents[1]))
from resumable_runs import name_of, run_all, unpack
from tables import markdown, mean_and_error

Labelled = tuple[str, dict[str, Any]]  # the row of a table that a run belongs to, and the run
KINDS = ("projective", "non-projective")
WITHOUT_TREES = ("bilstm", "transformer")
PULLED_BACK = ("ste_identity", "spigot", "spigot_ce", "spigot_eg")
# Trees of 14 words are too many to enumerate; and ReinMax is for one choice among several.
NOT_FEASIBLE = ("expected_loss", "reinmax")
ESTIMATORS = [name for name in list_estimators() if name not in NOT_FEASIBLE]
OPTIONS: dict[str, dict[str, Any]] = {
    "score_function": {"baseline": "self_critical"},
    **{name: {"step_size": "auto"} for name in PULLED_BACK},
}
# Of the sequence models. Not tuned yet: `baselines` is for that.
SEQUENCE_RATE = 1e-3
STEP_SIZES: list[float | str] = ["auto", 0.03, 0.1, 0.3, 1.0]
LEFT_OUT = ["entropy bonus", "whole steps", "less noise", "own learning rate", "curriculum"]
# When gradients are compared, in shares of the training.
LOOKS = (0.0, 0.05, 0.25)
# From this share of edges on, a run has found the trees.
FOUND = 0.9


def run_of(row: str, kind: str | None, seed: int, arguments: argparse.Namespace, **changed: Any) -> dict[str, Any]:
    """The arguments of `train` for one run."""
    files = [Path(file).name for file in arguments.files]
    run: dict[str, Any] = {"row": row, "seed": seed, "steps": arguments.steps, "files": files}
    if kind is not None:
        run |= {"kind": kind, "options": OPTIONS.get(row, {})}
    if row in WITHOUT_TREES:
        run["learning_rate"] = SEQUENCE_RATE
    return run | changed


def finish(runs: list[Labelled], arguments: argparse.Namespace, name: str) -> None:
    """Makes the runs, each with the label of its row, and writes a table of them."""
    folder = arguments.output_dir / "runs"
    if arguments.stored:
        runs, results = stored_ones(runs, folder)
    else:
        paths = {Path(file).name: str(Path(file).resolve()) for file in arguments.files}
        results = run_all(partial(train, TASKS[arguments.task], paths), [run for _, run in runs], folder, arguments.jobs)
    rows: dict[str, list[dict[str, Any]]] = {}
    for (label, _), result in zip(runs, results, strict=True):
        rows.setdefault(label, []).append(result)
    text = table(rows)
    write_file(arguments.output_dir / f"{name}.md", text)
    stored = [{"label": label, "run": run, **result} for (label, run), result in zip(runs, results, strict=True)]
    write_file(arguments.output_dir / f"{name}.json", json.dumps(stored, indent=1) + "\n")
    if name == "table":
        plot(TASKS[arguments.task], rows, arguments.output_dir / "table.svg", FOUND)
    print(text)


def stored_ones(runs: list[Labelled], folder: Path) -> tuple[list[Labelled], list[dict[str, Any]]]:
    """Those of the runs that are in the folder, on whatever files they were tested, and their results."""
    files = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    there = {name_of({**file["run"], "files": []}): file["result"] for file in files}
    found = [(label, run) for label, run in runs if name_of({**run, "files": []}) in there]
    if not found:
        raise SystemExit(f"None of these runs is stored in {folder}; give a file of runs by --packed.")
    return found, [there[name_of({**run, "files": []})] for _, run in found]


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Answers and edges in percent, the mean over runs ± its standard error, and how many runs found the trees."""
    names = list(next(iter(rows.values()))[0]["tests"])
    lines = []
    for label, results in rows.items():
        cells = []
        for name in names:
            answers = mean_and_error([100 * one["tests"][name]["answers"] for one in results])
            edges = [100 * one["tests"][name]["edges"] for one in results if "edges" in one["tests"][name]]
            cells.append(f"{answers} / {mean_and_error(edges)}" if edges else answers)
        found = [one["tests"]["validation"].get("edges", 0.0) >= FOUND for one in results]
        seconds = f"{statistics.mean(one['seconds'] for one in results):.0f}"
        lines.append([label, f"{sum(found)}/{len(found)}", *cells, seconds])
    return markdown(["found", *names, "seconds"], lines)


def main_table(arguments: argparse.Namespace) -> None:
    """All rows: sequence models, gold trees, and every estimator with both kinds of trees."""
    runs = []
    for seed in arguments.seeds:  # so that a command that is stopped has something of each
        for row in arguments.rows:
            kinds = (None,) if row in (*WITHOUT_TREES, "gold trees") else arguments.kinds
            for kind in kinds:
                label = row if kind is None else f"{row}, {kind}"
                runs.append((label, run_of(row, kind, seed, arguments)))
    finish(runs, arguments, "table")


def step_sizes(arguments: argparse.Namespace) -> None:
    """η of the pulled-back estimators, to be chosen by the validation column."""
    runs = [
        (f"{row}, {kind}, η = {size}", run_of(row, kind, seed, arguments, options={"step_size": size}))
        for seed in arguments.seeds
        for row in PULLED_BACK
        for kind in arguments.kinds
        for size in STEP_SIZES
    ]
    finish(runs, arguments, "step_sizes")


def ablation(arguments: argparse.Namespace) -> None:
    """The recipe, and what is left when each part of it is taken away."""
    runs = []
    for seed in arguments.seeds:
        for row in arguments.ablated:
            for kind in arguments.kinds:
                changes: dict[str, dict[str, Any]] = {"whole recipe": {}}
                changes |= {f"no {what}": {"without": [what]} for what in LEFT_OUT}
                changes["any number of roots"] = {"single_root": False}
                changes["parser sees the tokens"] = {"kinds": False}
                changes["biaffine over a BiLSTM"] = {"scorer": "biaffine"}
                runs += [
                    (f"{row}, {kind}: {name}", run_of(row, kind, seed, arguments, **change)) for name, change in changes.items()
                ]
    finish(runs, arguments, "ablation")


def baselines(arguments: argparse.Namespace) -> None:
    """Learning rates and dropout of the sequence models, to be chosen by the validation column."""
    runs = [
        (
            f"{row}, learning rate {rate}, dropout {dropout}",
            run_of(row, None, seed, arguments, learning_rate=rate, dropout=dropout),
        )
        for seed in arguments.seeds
        for row in WITHOUT_TREES
        for rate in (5e-4, 1e-3, 2e-3)
        for dropout in (0.0, 0.1)
    ]
    finish(runs, arguments, "baselines")


def compare_gradients(arguments: argparse.Namespace) -> None:
    """How near each estimator's gradient is to the exact one, while `ste_marginals` trains the network."""
    looks = [round(share * arguments.steps) for share in LOOKS]
    estimators = {name: OPTIONS.get(name, {}) for name in [*ESTIMATORS, "expected_loss"]}
    runs = [
        {"row": "ste_marginals", "kind": kind, "seed": seed, "steps": arguments.steps, "estimators": estimators, "looks": looks}
        for seed in arguments.seeds
        for kind in arguments.kinds
    ]
    folder = arguments.output_dir / "runs"
    results = run_all(partial(gradients, TASKS[arguments.task]), runs, folder, arguments.jobs)
    lines = []
    for name in estimators:
        cells = []
        for kind in arguments.kinds:
            own = [result["cosines"] for run, result in zip(runs, results, strict=True) if run["kind"] == kind]
            cells += [f"{statistics.mean(one[str(look)][name] for one in own):.2f}" for look in looks]
        lines.append([name, *cells])
    text = markdown([f"{kind}, {100 * share:g} %" for kind in arguments.kinds for share in LOOKS], lines)
    write_file(arguments.output_dir / "gradients.md", text)
    print(text)


COMMANDS = {
    "table": main_table,
    "step_sizes": step_sizes,
    "ablation": ablation,
    "baselines": baselines,
    "gradients": compare_gradients,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = [*WITHOUT_TREES, "gold trees", *ESTIMATORS]
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("command", choices=list(COMMANDS))
    parser.add_argument("--output_dir", type=Path, help="by default outputs/ and the task")
    parser.add_argument("--rows", nargs="+", default=rows, choices=rows)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="of trees; all with a single root")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--ablated", nargs="+", default=["ste_marginals", "perturb_and_map"], choices=ESTIMATORS)
    parser.add_argument("--files", nargs="*", default=[], help="`answer<TAB>expression` lines, to test on")
    parser.add_argument("--packed", type=Path, help="a file of runs to begin with, such as results/listops/runs.jsonl.gz")
    parser.add_argument("--stored", action="store_true", help="tabulate the runs that are there, and make none")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    arguments = parser.parse_args()
    if arguments.files and TASKS[arguments.task].read_file is None:
        parser.error(f"--files: there are none of {arguments.task}.")
    arguments.output_dir = arguments.output_dir or Path("outputs") / arguments.task
    if arguments.packed is not None:
        unpack(arguments.packed, arguments.output_dir / "runs")
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    main()
