"""What benchmarks beside other systems share: which are installed, and a fair clock."""

import importlib
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any


def installed(module: str) -> Any:
    """The module, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError:
        return None


def measure(call: Callable[[str], Any], systems: list[str], turns: int) -> dict[str, float]:
    """The median milliseconds of a call of each; they take turns, so that what else the machine does slows down all alike."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(turns + 1):
        for name in systems:
            start = time.perf_counter()
            call(name)
            if turn:  # the first one compiles
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(own) * 1000 for name, own in times.items()}
