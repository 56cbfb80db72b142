"""Runs asked for by row and setting, the choice among settings, and what is said of several starts."""

import statistics
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from clusters import Protocol
from resumable_runs import run_together
from rows import FEW, STARTS, Row, Setting
from training import OWN, STEPS, train

# The V-measure of a run that told all clusters from each other, and how near to the paper is near.
FOUND, NEAR = 97.0, 3.0


class Cell(NamedTuple):
    """What is trained from several starts."""

    row: Row
    clusters: int
    protocol: Protocol
    setting: Setting
    options: tuple[tuple[str, Any], ...] = ()
    more: tuple[tuple[str, Any], ...] = ()  # arguments of `train`


class Starts(NamedTuple):
    """The figures of several starts, by split."""

    validation: list[dict[str, float]]
    test: list[dict[str, float]]

    def of(self, measure: str, split: str = "test") -> list[float]:
        return [figures[measure] for figures in getattr(self, split)]

    def found(self) -> str:
        """How many starts told all clusters from each other."""
        return f"{sum(value > FOUND for value in self.of('v_measure'))}/{len(self.test)}"


class Study:
    """Trains what has not been trained yet, and looks up the rest.

    Args:
        folder: of the runs, each in a file of its own.
        jobs: processes at a time.
        seeds: of the starts; the first `FEW` of them serve to choose settings.
        steps: of each run.
    """

    def __init__(self, folder: Path, jobs: int = 1, seeds: list[int] = STARTS, steps: int = STEPS) -> None:
        self.folder, self.jobs, self.seeds, self.steps = folder, jobs, seeds, steps

    def curves(self, cells: list[Cell], few: bool = False) -> dict[Cell, list[dict[str, Any]]]:
        """The results of `train` for each start."""
        seeds = self.seeds[:FEW] if few else self.seeds
        runs = [
            cell.row.run(cell.clusters, cell.setting, seed, cell.protocol, self.steps, **dict(cell.options)) | dict(cell.more)
            for cell in cells
            for seed in seeds
        ]
        results = iter(run_together(train, runs, self.folder, self.jobs, OWN))
        return {cell: [next(results) for _ in seeds] for cell in cells}

    def starts(self, cells: list[Cell], few: bool = False) -> dict[Cell, Starts]:
        """The figures that the protocol of each cell keeps."""
        return {
            cell: Starts(*zip(*(kept(curve, cell.protocol) for curve in curves), strict=True))
            for cell, curves in self.curves(cells, few).items()
        }

    def grid(self, rows: list[Row], clusters: int, protocol: Protocol) -> dict[Row, dict[Cell, float]]:
        """Of each row, all settings that Table 4 has and their validation accuracy, a median over few starts.

        First the learning rates with η = 1, then each η with the best of these.
        """
        grid: dict[Row, dict[Cell, float]] = {row: {} for row in rows}
        for stage in (1, 2):
            rates = {row: best(grid[row]).setting.learning_rate if stage == 2 else None for row in rows}
            cells = [Cell(row, clusters, protocol, setting) for row in rows for setting in row.settings(rates[row])]
            for cell, starts in self.starts(cells, few=True).items():
                grid[cell.row][cell] = statistics.median(starts.of("accuracy", "validation"))
        return grid


def best(tried: dict[Cell, float]) -> Cell:
    """The one with the highest figure; of several, the first that was tried."""
    return max(tried, key=tried.__getitem__)


def kept(curve: dict[str, Any], protocol: Protocol) -> tuple[dict[str, float], dict[str, float]]:
    """The figures on validation and on test data that count."""
    accuracies = [figures["accuracy"] for figures in curve["validation"]]
    place = -1 if protocol.kept == "last" else accuracies.index(max(accuracies))
    test = "test" if protocol.thresholds == "test" else "test_by_training"
    return curve["validation"][place], curve[test][place]


def median(values: list[float]) -> str:
    """Median ± standard error, as in the paper."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.median(values):.1f} ± {error:.1f}"


def span(values: list[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def support(values: list[float], paper: float) -> str:
    """In how many of all ways to take four of the starts the median is near the paper's."""
    medians = [statistics.median(few) for few in combinations(values, min(FEW, len(values)))]
    return f"{100 * sum(abs(one - paper) <= NEAR for one in medians) / len(medians):.0f} %"
