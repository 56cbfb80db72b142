"""Many training runs at once, each kept in a file of its own, so that a command that was stopped goes on where it was."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_latent.files import write_file

Run = dict[str, Any]


def run_all(train: Callable[..., Run], runs: list[Run], folder: Path, jobs: int) -> list[Run]:
    """`train(**run)` of each run: from its file, or by training now, `jobs` at a time in processes of their own."""
    return run_together(partial(_each, train), runs, folder, jobs, own=(), most=1)


def run_together(
    train: Callable[[list[Run]], list[Run]], runs: list[Run], folder: Path, jobs: int, own: tuple[str, ...], most: int = 12
) -> list[Run]:
    """The same for a `train` that takes several runs at once, `most` of them, which are alike in all but their `own` arguments.

    One job is done in this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name_of(run) for run in runs]
    groups: dict[str, dict[Path, Run]] = {}
    for file, run in zip(files, runs, strict=True):
        if not file.is_file():
            groups.setdefault(_key({name: run[name] for name in run if name not in own}), {})[file] = run
    batches = [list(group.items())[first : first + most] for group in groups.values() for first in range(0, len(group), most)]
    with tqdm(total=sum(map(len, batches)), desc="Training runs", unit="run", disable=not batches) as progress:
        for batch, results in _trained(train, batches, jobs):
            for (file, run), result in zip(batch, results, strict=True):
                write_file(file, json.dumps({"run": run, "result": result}) + "\n")
                progress.update()
    return [json.loads(file.read_text())["result"] for file in files]


def pack(folder: Path, file: Path) -> None:
    """All runs of a folder in one file, sorted by their names."""
    lines = "".join(run.read_text() for run in sorted(folder.glob("*.json")))
    write_file(file, gzip.compress(lines.encode(), mtime=0))


def unpack(file: Path, folder: Path) -> None:
    """The other way round; runs that the folder has already stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        target = folder / name_of(json.loads(line)["run"])
        if not target.is_file():
            write_file(target, line + "\n")


def name_of(run: Run) -> str:
    return f"{hashlib.sha256(_key(run).encode()).hexdigest()[:16]}.json"


def _key(run: Run) -> str:
    return json.dumps(run, sort_keys=True)


def _each(train: Callable[..., Run], runs: list[Run]) -> list[Run]:
    return [train(**run) for run in runs]


def _trained(
    train: Callable[[list[Run]], list[Run]], batches: list[list[tuple[Path, Run]]], jobs: int
) -> Iterator[tuple[list[tuple[Path, Run]], list[Run]]]:
    """Each batch with its results, as they are done."""
    if jobs == 1:
        for batch in batches:
            yield batch, train([run for _, run in batch])
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(train, [run for _, run in batch]): batch for batch in batches}
        for future in as_completed(futures):
            yield futures[future], future.result()
