"""Named entities and parts of speech: a softmax at each word, a conditional random field, and segments, on the same network.

    pip install 'hf_latent[examples]'
    python examples/sequence_tagging/reproduce.py table --encoder sentence-transformers/all-MiniLM-L6-v2 \
        --word_vectors glove.6B.100d.txt.gz --entities wnut17/train.conll wnut17/dev.conll wnut17/test.conll \
        --tags en_ewt-ud-train.conllu en_ewt-ud-dev.conllu

Each run is kept in a file of its own, so that a command that was stopped goes on where it was.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from resumable_runs import Run, pack, run_all, unpack
from tables import markdown, mean_and_error
from train import train

from hf_latent.files import write_file

# Parts of speech are no spans: of these, there are no segments.
KINDS = {"entities": ("softmax", "crf", "segments"), "tags": ("softmax", "crf")}
ENCODERS, SENTENCES = ("word vectors", "transformer"), (300, None)
# The one with the highest F1 of spans (share of words that are right) on validation data, by the first seed on all sentences.
LEARNING_RATES = (1e-3, 3e-3)
STEPS = {"word vectors": 1500, "transformer": 500}
OF_SPANS = ("f1", "invalid", "calibration error")
NAMES = {"softmax": "softmax", "valid": "softmax, best valid sequence", "crf": "CRF", "segments": "segments"}


def run_of(task: str, encoder: str, kind: str, sentences: int | None, seed: int, learning_rate: float) -> Run:
    given = {"task": task, "encoder": encoder, "kind": kind, "sentences": sentences, "seed": seed}
    return {**given, "learning_rate": learning_rate, "steps": STEPS[encoder]}


def make(arguments: argparse.Namespace, runs: list[Run]) -> list[Run]:
    sources = {"word vectors": str(arguments.word_vectors), "transformer": arguments.encoder}
    return run_all(partial(train, sources, arguments.files), runs, arguments.output_dir / "runs", arguments.jobs)


def chosen(arguments: argparse.Namespace) -> dict[tuple[str, str, str], float]:
    """The learning rate for each task, encoder and kind of model."""
    first = arguments.seeds[0]
    keys = [(task, encoder, kind) for task in arguments.files for encoder in ENCODERS for kind in KINDS[task]]
    tried = {(key, rate): run_of(*key, None, first, rate) for key in keys for rate in LEARNING_RATES}
    results = dict(zip(tried, make(arguments, list(tried.values())), strict=True))

    def quality(key: tuple[str, str, str], rate: float) -> float:
        found = results[key, rate]["validation"]
        return found["spans"]["f1"] if "spans" in found else found["words"]

    return {key: max(LEARNING_RATES, key=partial(quality, key)) for key in keys}


def table(arguments: argparse.Namespace) -> None:
    rates = chosen(arguments)
    wanted = {
        (task, encoder, sentences, kind): [
            run_of(task, encoder, kind, sentences, seed, rates[task, encoder, kind]) for seed in arguments.seeds
        ]
        for task in arguments.files
        for encoder in ENCODERS
        for sentences in SENTENCES
        for kind in KINDS[task]
    }
    results = iter(make(arguments, [run for runs in wanted.values() for run in runs]))
    found = {key: [next(results) for _ in runs] for key, runs in wanted.items()}
    text = "\n".join(lines_of(task, {key[1:]: own for key, own in found.items() if key[0] == task}) for task in arguments.files)
    text += "\nLearning rates: " + "; ".join(f"{', '.join(key)} {rate:g}" for key, rate in rates.items()) + ".\n"
    write_file(arguments.output_dir / "table.md", text)
    named = {", ".join(map(str, key)): own for key, own in found.items()}
    write_file(arguments.output_dir / "table.json", json.dumps(named, indent=1) + "\n")
    print(text)


def lines_of(task: str, found: dict[Any, list[Run]]) -> str:
    """The table of a task: of spans their F1, those that are none, and calibration; otherwise the words that are right."""
    has_spans = "spans" in next(iter(found.values()))[0]["test"]
    lines = []
    for (encoder, sentences, kind), runs in found.items():
        name = f"{encoder}, {sentences or 'all'} sentences"
        parts = {"spans": kind, "valid spans": "valid"} if has_spans else {"words": kind}
        for part, row in parts.items():
            own = [one["test"][part] for one in runs if part in one["test"]]
            if own:
                values = [[one[column] for one in own] for column in OF_SPANS] if has_spans else [own]
                lines.append([f"{name}: {NAMES[row]}", *map(mean_and_error, values)])
    head = ["F1", "invalid spans, %", "calibration error"] if has_spans else ["right words, %"]
    return f"{task}:\n\n{markdown(head, lines)}"


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["table", "pack"])
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="a name on the Hub, or a folder")
    parser.add_argument("--word_vectors", type=Path, help="in GloVe's text format, plain or gzipped")
    parser.add_argument("--entities", type=Path, nargs=3, help="train, validation and test: a word and its label in each line")
    parser.add_argument("--tags", type=Path, nargs=2, help="train and test, in CoNLL-U; the last training sentences validate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/sequence_tagging"))
    parser.add_argument("--packed", type=Path, help="a file of runs to begin with, such as results/runs.jsonl.gz")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    arguments = parser.parse_args()
    given = {"entities": (arguments.entities, ("train", "validation", "test")), "tags": (arguments.tags, ("train", "test"))}
    arguments.files = {task: dict(zip(names, map(str, files), strict=True)) for task, (files, names) in given.items() if files}
    if arguments.command == "table" and not (arguments.files and arguments.word_vectors):
        parser.error("--word_vectors, and --entities or --tags or both: where are the vectors and the data?")
    return arguments


def main() -> None:
    arguments = read_arguments()
    if arguments.packed is not None:
        unpack(arguments.packed, arguments.output_dir / "runs")
    if arguments.command == "pack":
        pack(arguments.output_dir / "runs", arguments.output_dir / "runs.jsonl.gz")
    else:
        table(arguments)


if __name__ == "__main__":
    main()
