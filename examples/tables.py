"""Figures of runs as tables in Markdown."""

import statistics


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A table; `head` names the columns behind the first, which names the lines."""
    rows = [["", *head], [":--"] + ["--:"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def mean_and_error(values: list[float]) -> str:
    """With one decimal, the mean and, of several values, its standard error."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"
