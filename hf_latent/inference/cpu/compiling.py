"""How the kernels are compiled: without the interpreter's lock, and kept on disk for the next process."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

logger = logging.getLogger("hf_latent")

# A kernel contains the parts that it calls, so it is out of date when *any* file of this folder is another, or the limits that
# it checks for are. (Numba by itself looks at the file of the kernel alone, and would go on using the old code of the others
# after an upgrade.)
_FILES = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parents[1] / "checks.py"]
_SOURCES = tuple((path.name, path.stat().st_mtime, path.stat().st_size) for path in _FILES)

# Lets sums be reordered, so that loops become vector instructions; NaN and infinity keep their meaning.
REORDER = {"nsz", "reassoc", "contract"}

# A first call that takes longer than this says why.
PATIENCE_SECONDS = 1.5


def part(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator for a function that kernels call (compiled with each of them)."""
    return njit(nogil=True, error_model="numpy", **options)(function) if function else lambda inner: part(inner, **options)


class Kernel:
    """A compiled function that Python calls; decorator. Cached on disk where there is a place to write to."""

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            self.dispatcher = njit(cache=True, nogil=True, error_model="numpy")(function)
            self.dispatcher._cache._cache_file._source_stamp = _SOURCES
        except RuntimeError:  # neither the package's folder nor the user's cache can be written to
            self.dispatcher = njit(nogil=True, error_model="numpy")(function)
        self._ready = False

    def __call__(self, *arguments: Any) -> Any:
        if self._ready:
            return self.dispatcher(*arguments)
        timer = threading.Timer(PATIENCE_SECONDS, self._say_what_it_waits_for)
        timer.daemon = True
        timer.start()
        try:
            return self.dispatcher(*arguments)
        finally:
            timer.cancel()
            self._ready = True

    def _say_what_it_waits_for(self) -> None:
        logger.warning(
            "Compiling %s for this processor: some seconds, and only the first time (it is kept in %s).",
            self.dispatcher.py_func.__name__.replace("_", " "),
            getattr(self.dispatcher._cache, "cache_path", None) or "memory, since no folder for it can be written to",
        )
