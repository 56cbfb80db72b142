"""How the kernels are compiled: without the interpreter's lock, and kept on disk for the next process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

# A kernel contains the kernels that it calls, so it is out of date when *any* file of this folder is another. (Numba by
# itself looks at the file of the kernel alone, and would go on using the old code of the others after an upgrade.)
_SOURCES = tuple((path.name, path.stat().st_mtime, path.stat().st_size) for path in sorted(Path(__file__).parent.glob("*.py")))


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: Numba's `njit` with these options, cached on disk where there is a place to write to."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            dispatcher = njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written to
            return njit(nogil=True, **options)(function)
        dispatcher._cache._cache_file._source_stamp = _SOURCES
        return dispatcher

    return compiled
