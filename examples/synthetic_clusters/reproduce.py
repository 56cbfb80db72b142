"""Table 2 and Figures 2 and 3 of the paper, by the protocol of its code and by that of its text.

    pip install 'hf_latent[examples]'
    python examples/synthetic_clusters/reproduce.py table       --output_dir outputs/clusters  # four columns; see --columns
    python examples/synthetic_clusters/reproduce.py figure2     --output_dir outputs/clusters
    python examples/synthetic_clusters/reproduce.py figure3     --output_dir outputs/clusters
    python examples/synthetic_clusters/reproduce.py differences --output_dir outputs/clusters  # one thing changed at a time
    python examples/synthetic_clusters/reproduce.py labels      --output_dir outputs/clusters  # labels drawn at random
    python examples/synthetic_clusters/reproduce.py cost        --output_dir outputs/clusters

Each run is kept in a file of its own, so that a command that was stopped goes on where it was. Runs that two commands need are
made once. `pack` puts all runs into one file, which `--packed` takes: so tables are made from the runs that are stored here.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

sys.path += [str(folder) for folder in (Path(__file__).parent, Path(__file__).parents[1]) if str(folder) not in sys.path]
import figures
from clusters import PROTOCOLS, PULLED_BACK, first_weights, make_data
from resumable_runs import pack, unpack
from rows import CLUSTERS, FEW, LEARNING_RATES, ROWS, STARTS, Row, Setting
from study import Cell, Starts, Study, best, median, span, support
from tables import markdown
from training import STEPS, Adam, Models

from hf_latent.files import write_file

# Protocol and settings: those that the script for Table 2 reads, those of Table 4, or the best on validation of its whole grid.
COLUMNS = ("code-script", "code-best", "text-best", "text-appendix")
SETTINGS = [Setting(rate, size) for size in (1.0, 0.1, 2.0) for rate in LEARNING_RATES]
HEAD = ["lr ×1000, η"] + [
    f"{measure}{what}"
    for measure in ("accuracy", "V-measure")
    for what in (": paper", ", four starts", ", all starts (lowest to highest)", ", near the paper")
]
HEAD += ["found"]
# What the two protocols do differently, one at a time, from the code's to the text's.
CHANGES = ("logits", "decoder_range", "step_size_of", "weight_decay", "estimators", "thresholds", "kept")
# Estimators that aim at one cluster for each point.
SINGLE = ("perturbed_marginals", "perturb_and_map", "score_function", "ste_identity", "spigot_ce")
# Of the paper's own code (deep-spin/understanding-spigot), measured on a machine like the one of our stored results.
PAPER_SECONDS = {"softmax": 23.5, "ST-Gumbel *": 32.9, "STE-I": 23.5, "SPIGOT": 29.2, "SPIGOT-CE": 51.8, "SPIGOT-EG": 47.5}


def table(study: Study, arguments: argparse.Namespace) -> None:
    """Table 2 beside the paper's figures: one table for each number of clusters and column."""
    texts, stored = [], []
    for clusters in arguments.clusters:
        for name in arguments.columns:
            protocol, source = PROTOCOLS[name.split("-")[0]], name.split("-")[1]
            if source == "best":
                grid = study.grid(arguments.rows, clusters, protocol)
                cells = [best(tried) for tried in grid.values()]
            else:
                settings = {row: row.script[clusters] if source == "script" else row.appendix for row in arguments.rows}
                cells = [Cell(row, clusters, protocol, setting) for row, setting in settings.items()]
            column = list(study.starts(cells).items())
            texts.append(f"K = {clusters}, {name}\n\n{markdown(HEAD, [_line(*own) for own in column])}")
            if source == "best":
                texts.append(f"K = {clusters}, {name}: validation accuracy, median of {FEW} starts\n\n{_grid(grid)}")
            texts.append(accuracy_by_clusters([starts for cell, starts in column if cell.row.estimator in SINGLE]))
            stored += [{"column": name, **_stored(cell, starts)} for cell, starts in column]
        texts.append(told_apart(clusters))
    text = "\n".join(texts)
    write_file(arguments.output_dir / "table2.md", text)
    write_file(arguments.output_dir / "table2.json", json.dumps(stored, indent=1) + "\n")
    print(text)


def _line(cell: Cell, starts: Starts) -> list[str]:
    """Accuracy and V-measure: the paper's, that of the first four starts, of all, and how likely the paper's is by these."""
    line = [cell.row.name, str(cell.setting)]
    for (paper, error), measure in zip(cell.row.paper[cell.clusters], ("accuracy", "v_measure"), strict=True):
        values = starts.of(measure)
        line += [f"{paper:.1f} ± {error:.1f}", median(values[:FEW]), span(values), support(values, paper)]
    return [*line, starts.found()]


def _grid(grid: dict[Row, dict[Cell, float]]) -> str:
    """What was chosen from."""
    head = [str(setting) for setting in SETTINGS]
    lines = []
    for row, tried in grid.items():
        own = {(cell.setting.learning_rate, cell.setting.step_size or 1.0): figure for cell, figure in tried.items()}
        lines.append([row.name, *(f"{own[setting]:.1f}" if setting in own else "" for setting in SETTINGS)])
    return markdown(head, lines)


def _stored(cell: Cell, starts: Starts) -> dict[str, object]:
    return {"row": cell.row.name, "clusters": cell.clusters, "setting": cell.setting._asdict(), **starts._asdict()}


def accuracy_by_clusters(starts: list[Starts]) -> str:
    """How the accuracy depends on the V-measure, over all runs of the estimators that aim at one cluster: a straight line."""
    found, right = ([value for own in starts for value in own.of(measure)] for measure in ("v_measure", "accuracy"))
    if len(set(found)) < 2 or len(set(right)) < 2:
        return ""
    slope, intercept = statistics.linear_regression(found, right)
    return (
        f"Over {len(found)} runs of estimators that aim at one cluster, accuracy = {intercept:.1f} + {slope:.2f} · V-measure "
        f"(correlation {statistics.correlation(found, right):.2f}).\n"
    )


def told_apart(clusters: int, seeds: range = range(301, 321)) -> str:
    """Into how many places the clusters fall before training."""
    data, places = make_data(clusters)["train"], []
    for seed in seeds:
        start = first_weights(clusters, "ste_identity", seed, PROTOCOLS["code"])
        chosen = (data.x @ start["encoder"].T + start["encoder_bias"]).argmax(1)
        places.append(len({int(chosen[data.z == cluster].mode().values) for cluster in range(clusters)}))
    return (
        f"Before training, {len(seeds)} random encoders put the {clusters} clusters into {statistics.mean(places):.1f} places "
        f"on average; {sum(count == clusters for count in places)} of them tell all apart.\n"
    )


def differences(study: Study, arguments: argparse.Namespace) -> None:
    """The code's protocol with one thing changed at a time to the text's; then all of them: the text's protocol."""
    code, text = PROTOCOLS["code"], PROTOCOLS["text"]
    protocols = {"code": code}
    protocols |= {f"{change}: {getattr(text, change)}": replace(code, **{change: getattr(text, change)}) for change in CHANGES}
    protocols |= {"all: text": text}
    texts, stored = [], []
    for clusters in arguments.clusters:
        cells = {
            (row.name, name): Cell(row, clusters, protocol, row.script[clusters])
            for row in arguments.rows
            for name, protocol in protocols.items()
        }
        starts = study.starts(list(cells.values()))
        for measure in ("accuracy", "v_measure"):
            lines = []
            for row in arguments.rows:
                own = {name: starts[cells[row.name, name]] for name in protocols}
                lines.append([row.name, *(_or_same(name, own, measure) for name in protocols)])
            texts.append(f"K = {clusters}, {measure}: median (lowest to highest)\n\n{markdown(list(protocols), lines)}")
        stored += [{"change": name, **_stored(cell, starts[cell])} for (_, name), cell in cells.items()]
    write_file(arguments.output_dir / "differences.md", "\n".join(texts))
    write_file(arguments.output_dir / "differences.json", json.dumps(stored, indent=1) + "\n")
    print("\n".join(texts))


def _or_same(name: str, starts: dict[str, Starts], measure: str) -> str:
    """Of a change that changes nothing, nothing is said twice."""
    if name != "code" and starts[name] == starts["code"]:
        return "="
    return span(starts[name].of(measure)) + (f", found {starts[name].found()}" if measure == "v_measure" else "")


def labels(study: Study, arguments: argparse.Namespace) -> None:
    """Which estimators find the clusters by the code's protocol where labels are drawn at random, and tell nothing of them?"""
    cells = [
        Cell(row, clusters, PROTOCOLS["code"], row.script[clusters], more=(("labels", "random"),))
        for row in arguments.rows
        for clusters in arguments.clusters
    ]
    starts = study.starts(cells)
    lines = [
        [cell.row.name, str(cell.clusters), *(span(own.of(measure)) for measure in ("accuracy", "v_measure")), own.found()]
        for cell, own in starts.items()
    ]
    text = markdown(["K", "accuracy", "V-measure", "found"], lines)
    write_file(arguments.output_dir / "labels.md", text)
    write_file(arguments.output_dir / "labels.json", json.dumps([_stored(*own) for own in starts.items()], indent=1) + "\n")
    print(text)


def figure2(study: Study, arguments: argparse.Namespace) -> None:
    """Learning curves with 10 clusters by the code's protocol: medians over the first four starts, on validation data."""
    names = ("linear", "gold clusters", "softmax", "STE-I", "SPIGOT", "SPIGOT-CE", "SPIGOT-EG")
    cells = [Cell(row, 10, PROTOCOLS["code"], row.script[10]) for row in ROWS if row.name in names]
    figures.draw_curves(study.curves(cells, few=True), arguments.output_dir / "figure2.png")


def figure3(study: Study, arguments: argparse.Namespace) -> None:
    """Accuracy and V-measure with 10 clusters over the number of inner steps, each with its best step size."""
    rows = [row for row in arguments.rows if row.estimator in PULLED_BACK]
    for name in dict.fromkeys(column.split("-")[0] for column in arguments.columns):
        protocol = PROTOCOLS[name]
        rates = {row: row.script[10].learning_rate for row in rows}
        if name == "text":
            rates = {row: best(tried).setting.learning_rate for row, tried in study.grid(rows, 10, protocol).items()}
        cells = {
            (row.name, steps): [
                Cell(row, 10, protocol, setting, (("num_steps", steps),) if steps > 1 else ())
                for setting in row.settings(rates[row])
            ]
            for row in rows
            for steps in figures.INNER_STEPS
        }
        starts = study.starts([cell for own in cells.values() for cell in own], few=True)
        figures.draw_inner_steps(cells, starts, arguments.output_dir / f"figure3-{name}")


def cost(study: Study, arguments: argparse.Namespace) -> None:
    """Seconds per 1000 steps with 10 clusters, rows in turn on one core, each run among others, beside the paper's code."""
    torch.set_num_threads(1)
    data = make_data(10)["train"]
    transposed, steps = data.x.T.contiguous(), {}
    for row in arguments.rows:
        models = Models([row.run(10, row.script[10], seed, PROTOCOLS["code"]) for seed in study.seeds])
        steps[row.name] = models, Adam(models, [1e-3] * len(study.seeds))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(arguments.rounds), desc="Rounds"):
        for name, (models, optimizer) in steps.items():
            start = time.perf_counter()
            gradients = torch.autograd.grad(
                models.loss(data, transposed), list(models.weights.values()), materialize_grads=True
            )
            optimizer.step(gradients)
            seconds[name].append(1000 * (time.perf_counter() - start) / len(study.seeds))
    lines = []
    for name, own in seconds.items():
        ours, theirs = statistics.median(own[1:] or own), PAPER_SECONDS.get(name)
        lines.append([name, f"{ours:.2f}", f"{theirs or '-'}", f"{theirs / ours:.0f}×" if theirs else "-"])
    text = markdown(["s / 1000 steps", "paper's code", "ratio"], lines)
    write_file(arguments.output_dir / "cost.md", text)
    print(text)


def pack_runs(study: Study, arguments: argparse.Namespace) -> None:
    """All runs in one file."""
    pack(study.folder, arguments.output_dir / "runs.jsonl.gz")


def main() -> None:
    commands = {
        "table": table,
        "figure2": figure2,
        "figure3": figure3,
        "differences": differences,
        "labels": labels,
        "cost": cost,
        "pack": pack_runs,
    }
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=commands)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/clusters"))
    parser.add_argument("--packed", type=Path, help="a file of runs to begin with")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=COLUMNS, help="of the table; figure3: protocols")
    parser.add_argument("--clusters", type=int, nargs="+", choices=CLUSTERS, default=CLUSTERS)
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=f"some of: {', '.join(names)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=STARTS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=20, help="for cost")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, each on one core")
    arguments = parser.parse_args()
    arguments.rows = [row for row in ROWS if row.name in arguments.rows]
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    study = Study(arguments.output_dir / "runs", arguments.jobs, arguments.seeds, arguments.steps)
    if arguments.packed:
        unpack(arguments.packed, study.folder)
    commands[arguments.what](study, arguments)


if __name__ == "__main__":
    main()
