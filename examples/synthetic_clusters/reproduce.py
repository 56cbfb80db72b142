"""Table 2 and Figures 2 and 3 of the paper: which estimators find the clusters?

    pip install 'hf_latent[examples]'
    python examples/synthetic_clusters/reproduce.py table   --output_dir outputs/clusters
    python examples/synthetic_clusters/reproduce.py figure2 --output_dir outputs/clusters
    python examples/synthetic_clusters/reproduce.py figure3 --output_dir outputs/clusters
    python examples/synthetic_clusters/reproduce.py cost    --output_dir outputs/clusters

Each run is kept in a file of its own, so that a command that was stopped goes on where it was. Runs that two commands need are
made once.
"""

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from clusters import DATA_SEED, EVALUATE_EVERY, ClusterModel, make_data, new_optimizer, take_step, train
from tqdm import tqdm

from hf_latent.files import write_file

sys.path.append(str(Path(__file__).parents[1]))
from resumable_runs import run_all

SEEDS, CLUSTERS = [1, 2, 3, 4], [3, 10]


class Row(NamedTuple):
    """A row of Table 2: how to train, and the paper's accuracy and V-measure for 3 and for 10 clusters."""

    name: str
    estimator: str
    options: dict[str, Any]
    learning_rate: float
    paper: tuple[float, float, float, float]


ROWS = [
    Row("linear", "linear", {}, 1e-3, (68.05, 0.0, 60.0, 0.0)),
    Row("gold clusters", "gold", {}, 1e-3, (92.4, 100.0, 88.5, 100.0)),
    Row("softmax", "marginals", {}, 2e-3, (93.15, 66.88, 86.45, 75.07)),
    Row("sparsemax", "sparsemap", {}, 1e-3, (92.95, 71.35, 83.75, 76.13)),
    Row("Gumbel-softmax *", "perturbed_marginals", {}, 2e-3, (94.25, 100.0, 80.45, 89.68)),
    Row("ST-Gumbel *", "perturb_and_map", {}, 2e-3, (93.85, 100.0, 81.25, 91.52)),
    Row("score function *", "score_function", {"baseline": "none"}, 1e-3, (68.45, 47.73, 59.8, 55.56)),
    Row("score function, moving average *", "score_function", {"baseline": "moving_average"}, 1e-3, (94.2, 100.0, 84.7, 96.83)),
    Row("STE-S", "ste_marginals", {}, 2e-3, (86.95, 84.44, 75.95, 82.83)),
    Row("STE-I", "ste_identity", {}, 1e-3, (92.6, 100.0, 84.5, 94.48)),
    Row("SPIGOT", "spigot", {"step_size": 0.1}, 2e-3, (77.9, 20.53, 68.8, 29.24)),
    Row("SPIGOT-CE", "spigot_ce", {"step_size": 0.1}, 1e-3, (93.4, 97.08, 83.5, 94.88)),
    Row("SPIGOT-EG", "spigot_eg", {"step_size": 0.1}, 1e-3, (92.7, 100.0, 79.4, 82.29)),
]
STEP_SIZES, NUM_STEPS = [0.1, 1.0, 2.0], [1, 2, 5]
# The V-measure of a run that told all clusters from each other.
FOUND = 97.0
# Estimators that aim at one cluster for each point.
SINGLE = [
    "Gumbel-softmax *",
    "ST-Gumbel *",
    "score function *",
    "score function, moving average *",
    "STE-I",
    "SPIGOT-CE",
]
# Those that need not.
MIXING = ["softmax", "sparsemax", "STE-S", "SPIGOT-EG"]
# Of the paper's own code (deep-spin/understanding-spigot), measured on a machine like the one of our stored results.
PAPER_SECONDS = {"softmax": 23.5, "ST-Gumbel *": 32.9, "STE-I": 23.5, "SPIGOT": 29.2, "SPIGOT-CE": 51.8, "SPIGOT-EG": 47.5}


def run_of(row: Row, clusters: int, seed: int, steps: int, rate: float | None = None, **options: Any) -> dict[str, Any]:
    """The arguments of `train` for a row: with its own learning rate and options, unless others are given."""
    return {
        "clusters": clusters,
        "estimator": row.estimator,
        "options": options or row.options,
        "learning_rate": row.learning_rate if rate is None else rate,
        "seed": seed,
        "steps": steps,
    }


def median(values: list[float]) -> str:
    """Median ± standard error, as in the paper."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.median(values):.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"


def candidates(row: Row, arguments: argparse.Namespace) -> list[tuple[float, dict[str, Any]]]:
    """Learning rates and options to choose from by validation: those of Table 4, and what the command line adds."""
    found = [(row.learning_rate, row.options)]
    found += [(rate, row.options) for rate in arguments.learning_rates]
    if "step_size" in row.options:
        found += [(row.learning_rate, {**row.options, "step_size": size}) for size in arguments.step_sizes]
    return [one for place, one in enumerate(found) if one not in found[:place]]


def table(arguments: argparse.Namespace) -> None:
    """Table 2, with the paper's figures beside ours."""
    cells = [(row, clusters, *candidate) for row in ROWS for clusters in CLUSTERS for candidate in candidates(row, arguments)]
    runs = [
        run_of(row, clusters, seed, arguments.steps, rate, **options)
        for row, clusters, rate, options in cells
        for seed in arguments.seeds
    ]
    results = iter(run_all(train, runs, arguments.output_dir / "runs", arguments.jobs))
    tried: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row, clusters, rate, options in cells:
        own = [next(results) for _ in arguments.seeds]
        found = {"learning_rate": rate, "options": options, "seeds": arguments.seeds}
        found |= {split: [result[split] for result in own] for split in ("validation", "test")}
        found |= {name: [result["curves"][place] for result in own] for name, place in (("first", 0), ("last", -1))}
        tried.setdefault((row.name, clusters), []).append(found)
    head = [
        f"K = {clusters}: {what}"
        for clusters in CLUSTERS
        for what in ("accuracy", "paper", "V-measure", "paper", "found", "lr, η")
    ]
    lines, stored = [["", *head]], []
    for row in ROWS:
        line = [row.name]
        for which, clusters in enumerate(CLUSTERS):
            choices = tried[row.name, clusters]
            best = max(choices, key=lambda choice: statistics.mean(one["accuracy"] for one in choice["validation"]))
            paper = row.paper[2 * which : 2 * which + 2]
            accuracy = median([test["accuracy"] for test in best["test"]])
            if "accuracy_of_argmax" in best["test"][0]:
                accuracy += f" (argmax {median([test['accuracy_of_argmax'] for test in best['test']])})"
            setting = f"{best['learning_rate']:g}"
            if "step_size" in best["options"]:
                setting += f", {best['options']['step_size']:g}"
            v_measure = median([test["v_measure"] for test in best["test"]])
            found = sum(test["v_measure"] > FOUND for test in best["test"])
            line += [accuracy, f"{paper[0]:.1f}", v_measure, f"{paper[1]:.1f}", f"{found}/{len(best['test'])}", setting]
            stored.append({"row": row._asdict(), "clusters": clusters, "chosen": best, "tried": choices})
        lines.append(line)
    text = "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], [":--"] + ["--:"] * (len(lines[0]) - 1), *lines[1:]])
    text += "\n\n" + "\n".join(
        accuracy_by_clusters(tried, clusters) + courses(tried, clusters) + told_apart(clusters) for clusters in CLUSTERS
    )
    write_file(arguments.output_dir / "table2.md", text + "\n")
    write_file(arguments.output_dir / "table2.json", json.dumps(stored, indent=1) + "\n")
    print(text)


def accuracy_by_clusters(tried: dict[tuple[str, int], list[dict[str, Any]]], clusters: int) -> str:
    """How the accuracy depends on the V-measure, over all runs of the estimators that aim at one cluster: a straight line."""
    tests = [test for name in SINGLE for choice in tried[name, clusters] for test in choice["test"]]
    found, right = [test["v_measure"] for test in tests], [test["accuracy"] for test in tests]
    if len(set(found)) < 2:
        return ""
    slope, intercept = statistics.linear_regression(found, right)
    paper = [(row.name, *row.paper[2 * CLUSTERS.index(clusters) :][:2]) for row in ROWS if row.name in SINGLE]
    at_paper = ", ".join(f"{name} {intercept + slope * v:.1f} (paper {accuracy:.1f})" for name, accuracy, v in paper)
    return (
        f"K = {clusters}: over {len(tests)} runs of estimators that aim at one cluster, accuracy = {intercept:.1f} + "
        f"{slope:.2f} · V-measure (correlation {statistics.correlation(found, right):.2f}). "
        f"At the V-measures of the paper: {at_paper}.\n"
    )


def courses(tried: dict[tuple[str, int], list[dict[str, Any]]], clusters: int) -> str:
    """How the V-measure of those that mix clusters changes in training: medians over runs, on validation data."""
    parts = []
    for name in MIXING:
        runs = [(first, last) for one in tried[name, clusters] for first, last in zip(one["first"], one["last"], strict=True)]
        change = [f"{statistics.median(pair[place]['v_measure'] for pair in runs):.1f}" for place in (0, 1)]
        ends = sorted(last["v_measure"] for _, last in runs)
        parts.append(f"{name} {change[0]} -> {change[1]} ({ends[0]:.0f} to {ends[-1]:.0f})")
    return f"V-measure after {EVALUATE_EVERY} steps -> at the end (range at the end): {', '.join(parts)}.\n"


def told_apart(clusters: int, starts: int = 20) -> str:
    """Into how many places the clusters fall before training."""
    data, places = make_data(clusters, DATA_SEED)["train"], []
    for seed in range(1, starts + 1):
        torch.manual_seed(seed)
        chosen = ClusterModel(clusters, "ste_identity", {}).encoder(data.x).argmax(1)
        places.append(len({int(chosen[data.z == cluster].mode().values) for cluster in range(clusters)}))
    return (
        f"Before training, {starts} random encoders put the {clusters} clusters into {statistics.mean(places):.1f} places on "
        f"average; {sum(count == clusters for count in places)} of them tell all apart.\n"
    )


def cost(arguments: argparse.Namespace) -> None:
    """Seconds per 1000 steps with 10 clusters, all rows in turn on one core, beside those of the paper's own code."""
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {row.name: [] for row in ROWS}
    steps = {row.name: training_step(row.estimator, row.options) for row in ROWS}
    for _ in tqdm(range(20), desc="Rounds"):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(10):
                step()
            seconds[name].append(100 * (time.perf_counter() - start))
    lines = [["", "s / 1000 steps", "paper's code", "ratio"], [":--", "--:", "--:", "--:"]]
    for row in ROWS:
        ours, theirs = statistics.median(seconds[row.name][2:]), PAPER_SECONDS.get(row.name)
        lines.append([row.name, f"{ours:.2f}", f"{theirs or '-'}", f"{theirs / ours:.1f}×" if theirs else "-"])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    write_file(arguments.output_dir / "cost.md", text + "\n")
    print(text)


def training_step(estimator: str, options: dict[str, Any]) -> Callable[[], None]:
    """One step of training with 10 clusters, ready to be called again and again."""
    data = make_data(10, DATA_SEED)["train"]
    model = ClusterModel(10, estimator, options)
    optimizer = new_optimizer(model, 1e-3)
    return lambda: take_step(model, optimizer, data)


def figure2(arguments: argparse.Namespace) -> None:
    """Learning curves with 10 clusters: validation accuracy and V-measure over the steps."""
    rows = [row for row in ROWS if row.name in ("softmax", "STE-I", "SPIGOT", "SPIGOT-CE", "SPIGOT-EG", "STE-S")]
    runs = [run_of(row, 10, arguments.seeds[0], arguments.steps) for row in rows]
    results = run_all(train, runs, arguments.output_dir / "runs", arguments.jobs)
    plt = _pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharex=True)
    for axis, measure, label in zip(axes, ("accuracy", "v_measure"), ("accuracy", "V-measure"), strict=True):
        for row, result in zip(rows, results, strict=True):
            axis.plot(
                [point["step"] for point in result["curves"]], [point[measure] for point in result["curves"]], label=row.name
            )
        axis.set(xlabel="steps", ylabel=f"validation {label} (%)")
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    _save(figure, arguments.output_dir / "figure2.png")
    print(f"Written to {arguments.output_dir / 'figure2.png'}")


def figure3(arguments: argparse.Namespace) -> None:
    """Accuracy with 10 clusters over the number of inner steps, each with its best step size."""
    rows = [row for row in ROWS if row.name in ("STE-I", "SPIGOT", "SPIGOT-CE", "SPIGOT-EG")]
    keys = [(row, steps, size) for row in rows for steps in NUM_STEPS for size in STEP_SIZES]
    runs = [run_of(row, 10, arguments.seeds[0], arguments.steps, step_size=size, num_steps=steps) for row, steps, size in keys]
    found = run_all(train, runs, arguments.output_dir / "runs", arguments.jobs)
    results = {(row.name, steps, size): result for (row, steps, size), result in zip(keys, found, strict=True)}
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6.5, 3.4))
    stored = {}
    for row in rows:
        best = [
            max((results[row.name, steps, size] for size in STEP_SIZES), key=lambda result: result["validation"]["accuracy"])
            for steps in NUM_STEPS
        ]
        stored[row.name] = [result["test"] for result in best]
        axis.plot(NUM_STEPS, [result["test"]["accuracy"] for result in best], marker="o", label=row.name)
    axis.set(xlabel="inner steps", ylabel="test accuracy (%)", xticks=NUM_STEPS)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    _save(figure, arguments.output_dir / "figure3.png")
    write_file(arguments.output_dir / "figure3.json", json.dumps({"num_steps": NUM_STEPS, "test": stored}, indent=1) + "\n")
    print(f"Written to {arguments.output_dir / 'figure3.png'}")


def _save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_file(path, picture.getvalue())


def _pyplot():  # type: ignore[no-untyped-def]
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["table", "figure2", "figure3", "cost"])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/clusters"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--steps", type=int, default=10_000)
    rates = "for the table: learning rates to choose from by validation, beside that of the paper's Table 4"
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[], help=rates)
    parser.add_argument("--step_sizes", type=float, nargs="+", default=[], help="for the table: the same for η")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    {"table": table, "figure2": figure2, "figure3": figure3, "cost": cost}[arguments.what](arguments)


if __name__ == "__main__":
    main()
