"""Compiled code on disk: whatever lies there, kernels work, and only what is right is used."""

import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from hf_latent import DependencyTree
from hf_latent.inference.cpu import compiling
from hf_latent.structures.dependency_tree.cpu import kernels


def triple(values):
    return 3 * values.sum()


def quadruple(values):
    return 4 * values.sum()


VALUES = np.ones(2, np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the kernels of a test are kept; nothing has been warned of yet."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_warnings", set())
    return tmp_path


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def assert_loads(kernel: compiling.Kernel, values: np.ndarray = VALUES) -> None:
    """The kernel's code is on disk and used."""
    kernel(values)
    assert sum(kernel.dispatcher.stats.cache_hits.values()) == 1
    assert not kernel.dispatcher.stats.cache_misses


def test_a_second_process_loads_what_the_first_compiled(folder, caplog):
    assert compiling.Kernel(triple)(VALUES) == 6
    (file,) = files(folder)
    assert file.name.startswith("test_kernel_cache.triple-")
    assert_loads(compiling.Kernel(triple))
    assert not caplog.text


def test_each_combination_of_types_has_a_file(folder):
    kernel = compiling.Kernel(triple)
    assert kernel(VALUES) == kernel(VALUES.astype(np.float64)) == 6
    assert len(files(folder)) == 2
    assert_loads(compiling.Kernel(triple), VALUES.astype(np.float64))


def other_stamp(content: bytes) -> bytes:
    _, signature, code = pickle.loads(content[32:])
    return _sealed(("another", signature, code))


def other_signature(content: bytes) -> bytes:
    stamp, _, code = pickle.loads(content[32:])
    return _sealed((stamp, "(another,)", code))


def no_code(content: bytes) -> bytes:
    stamp, signature, _ = pickle.loads(content[32:])
    return _sealed((stamp, signature, (1, 2, 3)))


def _sealed(parts: tuple) -> bytes:
    content = pickle.dumps(parts)
    return compiling.hashlib.sha256(content).digest() + content


DAMAGES = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:1000],
    "cut off within the checksum": lambda content: content[:20],
    "without its end": lambda content: content[:-1],
    "with one bit turned": lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    "garbage": lambda content: os.urandom(500),
    "a text": lambda content: b"<html>404</html>" * 10,
    "not what it should hold": lambda content: _sealed(("x",)),
    "no code": no_code,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_replaced_with_one_warning(folder, caplog, damage):
    for kernel in (triple, quadruple):
        compiling.Kernel(kernel)(VALUES)
    for file in files(folder):
        file.write_bytes(damage(file.read_bytes()))
    assert compiling.Kernel(triple)(VALUES) == 6
    assert compiling.Kernel(quadruple)(VALUES) == 8
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be used" in caplog.text
    assert_loads(compiling.Kernel(triple))
    assert len(files(folder)) == 2


@pytest.mark.parametrize("change", [other_stamp, other_signature])
def test_what_is_out_of_date_is_replaced_without_a_word(folder, caplog, change):
    compiling.Kernel(triple)(VALUES)
    (file,) = files(folder)
    file.write_bytes(change(file.read_bytes()))
    kernel = compiling.Kernel(triple)
    assert kernel(VALUES) == 6
    assert not kernel.dispatcher.stats.cache_hits
    assert not caplog.text
    assert_loads(compiling.Kernel(triple))


def test_a_folder_in_the_place_of_a_file_costs_a_warning(folder, caplog):
    compiling.Kernel(triple)(VALUES)
    (file,) = files(folder)
    file.unlink()
    file.mkdir()
    assert compiling.Kernel(triple)(VALUES) == 6
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2  # neither read nor written


def no_space(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("method", ["write_bytes", "replace", "mkdir"])
def test_a_full_disk_costs_a_warning(folder, caplog, monkeypatch, method):
    monkeypatch.setattr(Path, method, lambda *arguments, **options: no_space())
    assert compiling.Kernel(triple)(VALUES) == 6
    assert compiling.Kernel(quadruple)(VALUES) == 8
    assert "cannot be kept" in caplog.text
    assert "No space left" in caplog.text
    assert len(caplog.records) == 1
    assert not files(folder), "half a file was left behind"


def test_a_folder_that_vanishes_is_made_again(folder):
    kernel = compiling.Kernel(triple)
    (place,) = folder.iterdir()
    place.rmdir()
    assert kernel(VALUES) == 6
    assert_loads(compiling.Kernel(triple))


def test_without_a_place_for_a_cache_it_still_runs(monkeypatch):
    """A read-only installation: Numba finds no place for its files."""
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    kernel = compiling.Kernel(triple)
    assert kernel.dispatcher._cache.folder is None
    assert kernel(VALUES) == 6


def test_a_kernel_is_out_of_date_when_a_file_that_it_calls_is_another(monkeypatch):
    sources = compiling.sources(Path(kernels.__file__).parent)
    names = {name for name, _, _ in sources}
    assert {"eisner.py", "arborescence.py", "active_set.py", "checks.py"} <= names
    DependencyTree().argmax(torch.randn(1, 3, 4))
    dispatcher = kernels.argmax.dispatcher
    (signature, *_) = dispatcher.overloads
    cache = dispatcher._cache
    assert cache.load_overload(signature, dispatcher.targetctx) is not None
    monkeypatch.setattr(cache, "_stamp", (*sources[:-1], ("eisner.py", 0.0, 0)))
    assert cache.load_overload(signature, dispatcher.targetctx) is None
    cache._timer.cancel()


def test_compiling_is_said_of_what_compiles_alone(caplog, monkeypatch):
    """Also of the second type; not of what is loaded, however long that takes."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(compiling, "PATIENCE_SECONDS", 0.0)
    compiling.Kernel(triple)(VALUES)
    assert caplog.text.count("Compiling triple for this processor") == 1
    kernel = compiling.Kernel(triple)
    rebuild = kernel.dispatcher._cache._numbas.rebuild
    monkeypatch.setattr(
        kernel.dispatcher._cache._numbas,
        "rebuild",
        lambda *found: (torch.randn(600, 600) @ torch.randn(600, 600), rebuild(*found))[1],
    )
    assert_loads(kernel)
    assert caplog.text.count("Compiling") == 1
    kernel(VALUES.astype(np.float64))
    assert caplog.text.count("Compiling") == 2


def _compile(queue, dtype) -> None:
    queue.put(compiling.Kernel(triple)(VALUES.astype(dtype)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_compile_at_once_keep_out_of_each_others_way(folder, caplog):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    dtypes = [np.float32, np.float64, np.int64, np.int32] * 2
    children = [context.Process(target=_compile, args=(queue, dtype)) for dtype in dtypes]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [6] * len(children)
    for child in children:
        child.join(timeout=60)
    assert len(files(folder)) == 4
    for dtype in dtypes:
        kernel = compiling.Kernel(triple)
        assert kernel(VALUES.astype(dtype)) == 6
        assert_loads(compiling.Kernel(triple), VALUES.astype(dtype))
    assert not caplog.text


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


ARGMAX = "import hf_latent, torch; print(hf_latent.DependencyTree().argmax(torch.tensor([[[1.0, 0.0]]])).tolist())"


def test_the_kernels_compile_where_numba_is_told_to_compile_nothing():
    """NUMBA_DISABLE_JIT is for code that Python can run as well, such as the user's own."""
    own = "import numba; print(numba.njit(lambda: 3).__class__.__name__)"
    printed = run(f"{ARGMAX}\n{own}", NUMBA_DISABLE_JIT="1")
    assert "[[[1.0, 0.0]]]" in printed
    assert "function" in printed


@pytest.mark.slow
def test_a_real_kernel_on_a_disk_that_is_full_and_from_a_file_that_is_cut_off(tmp_path):
    place = {"NUMBA_CACHE_DIR": str(tmp_path)}
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
    printed = run(limit + ARGMAX, **place)
    assert "[[[1.0, 0.0]]]" in printed
    assert "cannot be kept" in printed
    assert not files(tmp_path)
    run(ARGMAX, **place)
    for file in files(tmp_path):
        os.truncate(file, 1000)
    printed = run(ARGMAX, **place)
    assert "[[[1.0, 0.0]]]" in printed
    assert "cannot be used" in printed
    printed = run(ARGMAX, **place)
    assert "cannot" not in printed
    assert "Compiling" not in printed
