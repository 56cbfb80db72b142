"""A table as a picture: answers over the length, and the share of runs that found the trees."""

import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tasks import Task

# Tests by what grows in them; the rest have other shapes.
GROWING = {
    "listops": {
        "up to 20 tokens": "up to 20\n(as in training)",
        "21 to 40, depth 5": "21 to 40",
        "80 to 100": "80 to 100",
        "160 to 200": "160 to 200",
    },
    "arithmetic": {
        "up to 20 tokens": "up to 20\n(as in training)",
        "depth 6": "depth 6",
        "depth 8": "depth 8",
        "80 to 100": "80 to 100",
        "160 to 200": "160 to 200",
    },
}
# The share of the answers that is right if it is always the same.
MOST_FREQUENT = {"listops": 11.3, "arithmetic": 20.2}
KINDS = ("projective", "non-projective")
COLORS = ("#0b6e4f", "#8fc9a9")
LINES = {
    "gold trees": ("gold trees (the ceiling)", "0.5", "--"),
    "ste_marginals, projective": ("latent trees, ste_marginals", "#0b6e4f", "-"),
    "perturb_and_map, projective": ("latent trees, perturb_and_map", "#3a86c8", "-"),
    "bilstm": ("BiLSTM, no tree", "#c0392b", "-"),
    "transformer": ("Transformer, no tree", "#e69138", "-"),
}


def plot(task: Task, rows: dict[str, list[dict[str, Any]]], file: Path, found_from: float) -> None:
    """Writes the picture of a table whose rows are runs."""
    tests = GROWING[task.name]
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    for row, (label, color, style) in LINES.items():
        if row in rows:
            means = [100 * statistics.mean(one["tests"][name]["answers"] for one in rows[row]) for name in tests]
            left.plot(range(len(means)), means, style, color=color, marker="o", label=label)
    left.axhline(MOST_FREQUENT[task.name], color="0.85", zorder=0)
    left.text(
        len(tests) - 1, MOST_FREQUENT[task.name] + 1, "always the most frequent answer", ha="right", fontsize=8, color="0.5"
    )
    left.set_xticks(range(len(tests)), labels=list(tests.values()))
    left.set(
        ylim=(0, 102), ylabel="answers that are right, %", xlabel="tokens of the expression", title="Longer than in training"
    )
    left.legend(loc="center left", bbox_to_anchor=(0.0, 0.42), fontsize=8, frameon=False)
    names = {row.split(", ")[0] for row in rows if ", " in row}
    shares = {name: [_share(rows.get(f"{name}, {kind}", []), found_from) for kind in KINDS] for name in names}
    ordered = sorted(sorted(names), key=lambda name: sum(shares[name]))
    for which, (kind, color) in enumerate(zip(KINDS, COLORS, strict=True)):
        spots = [place + 0.2 - 0.4 * which for place in range(len(ordered))]
        right.barh(spots, [shares[name][which] for name in ordered], 0.38, color=color, label=kind)
    right.set_ylim(-1.3, len(ordered) - 0.4)  # with room for the legend
    right.set_yticks(range(len(ordered)), labels=ordered, fontsize=8)
    right.set(
        xlim=(0, 100),
        xlabel=f"runs with {100 * found_from:.0f} % of the edges and more, %",
        title="Trees found from answers alone",
    )
    right.legend(loc="lower right", fontsize=8, frameon=False)
    figure.savefig(file)


def _share(runs: list[dict[str, Any]], found_from: float) -> float:
    """In percent; 0 without runs."""
    edges = [one["tests"]["validation"]["edges"] for one in runs]
    return 100 * statistics.mean(edge >= found_from for edge in edges) if edges else 0.0
