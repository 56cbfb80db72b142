"""How the kernels are compiled: without the interpreter's lock, and kept on disk for the next process."""

import contextlib
import hashlib
import logging
import pickle
import sys
import threading
import uuid
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import serialize
from numba.core.caching import CompileResultCacheImpl, NullCache

from hf_latent.inference.cpu.threads import run_interruptibly

logger = logging.getLogger("hf_latent")

# What all kernels are made with, and the limits that they check for.
_SHARED_FILES = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parents[1] / "checks.py"]

# Lets sums be reordered, so that loops become vector instructions; NaN and infinity keep their meaning.
REORDER = {"nsz", "reassoc", "contract"}

# Who waits longer than this for a kernel that is compiled is told why.
PATIENCE_SECONDS = 1.5

_warnings: set[str] = set()


@cache
def sources(folder: Path) -> tuple[tuple[str, float, int], ...]:
    """What tells the versions of a structure's kernels, all in one `folder`, apart.

    A kernel contains the parts that it calls, so it is out of date when *any* file of the folder is another, or what all
    kernels are made with. (Numba by itself looks at the file of the kernel alone, and would go on using the old code of the
    others after an upgrade.)
    """
    files = [*sorted(folder.glob("*.py")), *_SHARED_FILES]
    return tuple((path.name, path.stat().st_mtime, path.stat().st_size) for path in files)


def _warn_once(kind: str, *arguments: object) -> None:
    """Says it at the first of the kernels alone: what is wrong with the cache is wrong for all."""
    if kind not in _warnings:
        _warnings.add(kind)
        logger.warning(kind, *arguments)


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Numba's dispatcher, also under NUMBA_DISABLE_JIT: that is for code that Python can run, which vectors are not."""
    disabled, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, 0
    try:
        return numba.njit(nogil=True, error_model="numpy", **options)(function)
    finally:
        numba.config.DISABLE_JIT = disabled


def part(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator for a function that kernels call (compiled with each of them)."""
    return _compiled(function, **options) if function else lambda inner: part(inner, **options)


class Kernel:
    """A compiled function that Python calls; decorator. Kept on disk where there is a place to write to."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.dispatcher = _compiled(function)
        self.dispatcher._cache = KernelCache(function)
        # What Numba calls where there is no code yet for these types.
        compile_for = self.dispatcher._compile_for_args
        self.dispatcher._compile_for_args = lambda *arguments: run_interruptibly(partial(compile_for, *arguments))

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self.dispatcher(*arguments)
        except SystemError as error:
            # Of the handler of a signal, such as Ctrl-C, which was run while Numba handed over the results.
            cause: BaseException = error
            while isinstance(cause, SystemError) and cause.__cause__ is not None:
                cause = cause.__cause__
            raise cause from None


class KernelCache(NullCache):
    """A kernel's code on disk, by the interface of Numba's caches: a file for each combination of argument types.

    A file is written whole or not at all, says what it is made from, and begins with a checksum: whatever it is that lies in
    its place (cut off, of another version, another's), the code is used only if it is the right one. A file that cannot be
    read or written costs time and a warning, no more. (Numba's own caches raise, in each process anew, and mix up the code of
    two processes that compile at once.)
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = function.__name__
        self._stamp = sources(Path(function.__code__.co_filename).parent)
        try:
            self._numbas = CompileResultCacheImpl(function)
            self.folder: Path | None = Path(self._numbas.locator.get_cache_path())
        except (RuntimeError, OSError):  # neither the package's folder nor the user's cache can be written to
            self.folder = None

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The code for this signature, or None: then it is compiled, and `save_overload` called."""
        target.refresh()
        if self.folder is not None:
            path = self.path(signature, target.codegen())
            try:
                content = path.read_bytes()
                if content[:32] != hashlib.sha256(content[32:]).digest():
                    raise ValueError("it is damaged")
                stamp, signed, code = pickle.loads(content[32:])
                if (stamp, signed) == (self._stamp, str(signature)):
                    return self._numbas.rebuild(target, code)
            except FileNotFoundError:
                pass
            except Exception as error:
                _warn_once("A compiled kernel, %s, cannot be used (%s): it is compiled anew.", path, error)
        self._timer = threading.Timer(PATIENCE_SECONDS, self._say_what_takes_long)
        self._timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread can be started
            self._timer.start()
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keeps the compiled `result`, if possible."""
        self._timer.cancel()
        if self.folder is None or not self._numbas.check_cachable(result):
            return
        path = self.path(signature, result.codegen)
        beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            code = serialize.dumps((self._stamp, str(signature), self._numbas.reduce(result)))
            self.folder.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(hashlib.sha256(code).digest() + code)
            beside.replace(path)
        except Exception as error:
            _warn_once("Compiled kernels cannot be kept in %s (%s): each process compiles anew.", self.folder, error)
            with contextlib.suppress(OSError):
                beside.unlink()

    def path(self, signature: Any, codegen: Any) -> Path:
        """The file for this signature, this processor, and this Python and Numba."""
        assert self.folder is not None
        versions = sys.version, numba.__version__, llvmlite.__version__
        about = hashlib.sha256(repr((str(signature), codegen.magic_tuple(), versions)).encode()).hexdigest()[:16]
        return self.folder / f"{self._numbas.filename_base}.{about}.nbc"

    def _say_what_takes_long(self) -> None:
        logger.warning(
            "Compiling %s for this processor: some seconds, and only the first time (it is kept in %s).",
            self._name.replace("_", " "),
            self.folder or "memory, since no folder for it can be written to",
        )
