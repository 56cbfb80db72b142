r"""What a latent tree costs in training: milliseconds a step for each estimator, over the same network without a tree.

    python examples/benchmarks/training_step.py --sentences sst2/train.tsv --pairs SICK_train.txt \
        --pair_columns sentence_A sentence_B entailment_judgment --word_vectors glove.6B.100d.txt.gz \
        --output_dir outputs/benchmarks

Sentences: a BiLSTM (hidden size 100) and batches of 32. Pairs: decomposable attention on words without context (hidden size
200) and batches of 64. All estimators take turns on the same batches, so that a busy machine is unfair to none, and all learn
from them: the scores of a network that has learned nothing are all alike, and estimators that look for the few best trees
(SparseMAP) take longest with those. So the first steps are given apart.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from hf_latent import BiLstmConfig, BiLstmModel, LatentTreeForPairClassification, LatentTreeForSequenceClassification
from hf_latent.files import read_text, write_file
from hf_latent.models.bilstm import word_tokenizer

WARM_UP, FIRST = 3, 20
ESTIMATORS = ["marginals", "sparsemap", "perturb_and_map", "ste_marginals", "ste_identity", "spigot", "spigot_ce", "spigot_eg"]


def read_columns(path: Path, columns: list[str]) -> list[tuple[str, ...]]:
    """The texts of a tab-separated file: its first columns, or those that its header line names."""
    lines = [line.split("\t") for _, line in read_text(path, "file of texts") if line]
    places = list(range(len(columns)))
    if lines and set(columns) <= set(lines[0]):
        places = [lines[0].index(name) for name in columns]
        lines = lines[1:]
    if not lines or min(map(len, lines)) <= max(places):
        raise SystemExit(f"{path} must have {max(places) + 1} columns or more, separated by tabs, in each of its lines.")
    return [tuple(line[place].lower() for place in places) for line in lines]


def measure(
    rows: list[tuple[str, ...]], word_vectors: str | None, batch_size: int, steps: int
) -> dict[str, tuple[float, float]]:
    """For no tree and for each estimator, the median of the milliseconds of all steps, and of the first `FIRST`."""
    pairs = len(rows[0]) == 3
    words = sorted({word for row in rows for text in row[:-1] for word in text.split()})
    names = sorted({row[-1] for row in rows})
    size = {"hidden_size": 200, "num_hidden_layers": 0 if pairs else 1}
    models: dict[str, tuple[PreTrainedModel, torch.optim.Optimizer]] = {}
    for name in ["none", *ESTIMATORS]:
        torch.manual_seed(0)
        if word_vectors is None:
            tokenizer = word_tokenizer(words, pairs=pairs)
            encoder = BiLstmModel(BiLstmConfig(vocab_size=len(tokenizer), embedding_size=100, **size))
        else:
            encoder, tokenizer = BiLstmModel.from_word_vectors(word_vectors, vocabulary=words, pairs=pairs, **size)
        model_class = LatentTreeForPairClassification if pairs else LatentTreeForSequenceClassification
        model = model_class.from_encoder(
            encoder,
            tokenizer,
            num_labels=len(names),
            estimator=None if name == "none" else name,
            estimator_options={"step_size": 0.1} if name.startswith("spigot") or name == "ste_identity" else None,
            decoder_size=200 if pairs else 100,
        )
        models[name] = model.train(), torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for step in tqdm(range(WARM_UP + steps), desc="Pairs" if pairs else "Sentences", unit="batch"):
        chosen = [rows[place] for place in torch.randperm(len(rows), generator=generator)[:batch_size].tolist()]
        *texts, labels = [list(column) for column in zip(*chosen, strict=True)]
        batch = tokenizer(*texts, padding=True, return_tensors="pt")
        batch["labels"] = torch.tensor([names.index(label) for label in labels])
        for name, (model, optimizer) in models.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            model(**batch).loss.backward()
            if step >= WARM_UP:
                optimizer.step()
                seconds[name].append(time.perf_counter() - start)
    return {name: (1000 * statistics.median(found), 1000 * statistics.median(found[:FIRST])) for name, found in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=Path, help="a tab-separated file of texts and their labels")
    parser.add_argument("--pairs", type=Path, help="a tab-separated file of two texts and their label")
    parser.add_argument("--pair_columns", nargs=3, default=["premise", "hypothesis", "label"])
    parser.add_argument("--word_vectors", help="in GloVe's text format; without, random ones")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks"))
    arguments = parser.parse_args()
    if arguments.sentences is None and arguments.pairs is None:
        parser.error("pass --sentences, --pairs, or both")
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    results = {}
    if arguments.sentences is not None:
        rows = read_columns(arguments.sentences, ["text", "label"])
        results["sentences, batches of 32"] = measure(rows, arguments.word_vectors, 32, arguments.steps)
    if arguments.pairs is not None:
        rows = read_columns(arguments.pairs, arguments.pair_columns)
        results["pairs, batches of 64"] = measure(rows, arguments.word_vectors, 64, arguments.steps)
    head = "".join(f" {name} (ms) | ratio | ratio of the first {FIRST} steps |" for name in results)
    lines = ["| |" + head, "|:--|" + "--:|--:|--:|" * len(results)]
    for name in ["none", *ESTIMATORS]:
        cells = []
        for found in results.values():
            (all_steps, first), (plain, plain_first) = found[name], found["none"]
            cells.append(f"{all_steps:.1f} | {all_steps / plain:.2f}× | {first / plain_first:.2f}×")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    stored = {"threads": torch.get_num_threads(), "milliseconds": results, "steps": arguments.steps}
    write_file(arguments.output_dir / "training_step.json", json.dumps(stored, indent=1) + "\n")
    write_file(arguments.output_dir / "training_step.md", table + "\n")
    print(f"\n{table}")


if __name__ == "__main__":
    main()
