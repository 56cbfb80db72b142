"""Many training runs at once, each kept in a file of its own, so that a command that was stopped goes on where it was."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_latent.files import write_file


def run_all(train: Callable[..., dict[str, Any]], runs: list[dict[str, Any]], folder: Path, jobs: int) -> list[dict[str, Any]]:
    """`train(**run)` of each run: from its file, or by training now, `jobs` at a time in processes of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]}.json" for run in runs]
    missing = {file: run for file, run in zip(files, runs, strict=True) if not file.is_file()}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(train, **run): (file, run) for file, run in missing.items()}
        for future in tqdm(as_completed(futures), total=len(futures), desc="Training runs", unit="run"):
            file, run = futures[future]
            write_file(file, json.dumps({"run": run, "result": future.result()}) + "\n")
    return [json.loads(file.read_text())["result"] for file in files]
