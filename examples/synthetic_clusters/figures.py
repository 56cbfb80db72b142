"""Figures 2 and 3 of the paper."""

import io
import json
import statistics
from pathlib import Path
from typing import Any

from study import Cell, Starts

from hf_latent.files import write_file

INNER_STEPS = (1, 2, 5, 10)
MEASURES = {"accuracy": "accuracy", "v_measure": "V-measure"}


def draw_curves(curves: dict[Cell, list[dict[str, Any]]], path: Path) -> None:
    """Figure 2: medians over starts, on validation data, over the steps."""
    figure, axes = _pyplot().subplots(1, 2, figsize=(10, 3.4), sharex=True)
    for axis, measure in zip(axes, MEASURES, strict=True):
        for cell, starts in curves.items():
            points = zip(*(start["validation"] for start in starts), strict=True)
            medians = [statistics.median(one[measure] for one in point) for point in points]
            axis.plot(starts[0]["steps"], medians, label=cell.row.name)
        axis.set(xlabel="steps", ylabel=f"validation {MEASURES[measure]} (%)")
        axis.grid(alpha=0.3)
    _save(figure, axes[1], path)


def draw_inner_steps(cells: dict[tuple[str, int], list[Cell]], starts: dict[Cell, Starts], path: Path) -> None:
    """Figure 3: medians and standard errors over starts, on validation data, with the η that is best there."""
    best = {
        place: max(own, key=lambda cell: statistics.median(starts[cell].of("accuracy", "validation")))
        for place, own in cells.items()
    }
    figure, axes = _pyplot().subplots(1, 2, figsize=(10, 3.4), sharex=True)
    for axis, measure in zip(axes, MEASURES, strict=True):
        for name in dict.fromkeys(name for name, _ in cells):
            values = [starts[best[name, steps]].of(measure, "validation") for steps in INNER_STEPS]
            errors = [statistics.stdev(own) / len(own) ** 0.5 if len(own) > 1 else 0.0 for own in values]
            axis.errorbar(INNER_STEPS, [*map(statistics.median, values)], errors, marker="o", capsize=2, label=name)
        axis.set(xlabel="inner steps", ylabel=f"validation {MEASURES[measure]} (%)", xticks=INNER_STEPS)
        axis.grid(alpha=0.3)
    _save(figure, axes[1], path.with_suffix(".png"))
    stored = [
        {"row": name, "num_steps": steps, "setting": cell.setting._asdict(), **starts[cell]._asdict()}
        for (name, steps), cell in best.items()
    ]
    write_file(path.with_suffix(".json"), json.dumps(stored, indent=1) + "\n")


def _save(figure: Any, last: Any, path: Path) -> None:
    last.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_file(path, picture.getvalue())
    print(f"Written to {path}")


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot
