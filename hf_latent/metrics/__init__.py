"""Metrics for `evaluate`, loaded from this package: no network, and nothing to find on the Hub."""

from pathlib import Path

import evaluate

_FILES = {path.stem: path for path in Path(__file__).parent.glob("[a-z]*.py")}


def list_metrics() -> list[str]:
    """The names that `load_metric` knows."""
    return sorted(_FILES)


def load_metric(name: str, **options) -> evaluate.Metric:
    """One of ours, as `evaluate.load` returns it; `options` are passed on to that.

    >>> load_metric("attachment_score").compute(predictions=[[2, 0]], references=[[2, 0]])
    {'attachment_score': 1.0, 'undirected_attachment_score': 1.0}

    Raises:
        ValueError: an unknown name.
    """
    if name not in _FILES:
        raise ValueError(f"Unknown metric {name!r}. The known ones are: {', '.join(list_metrics())}.")
    return evaluate.load(str(_FILES[name]), **options)


__all__ = ["list_metrics", "load_metric"]
