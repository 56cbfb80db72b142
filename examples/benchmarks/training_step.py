"""What a latent tree costs in training: milliseconds a step for each estimator, over the same network without a tree.

    python examples/benchmarks/training_step.py --sentences sst2/train.tsv --pairs SICK_train.txt \
        --pair_columns sentence_A sentence_B --output_dir outputs/benchmarks

Sentences: a BiLSTM (hidden size 100) and batches of 32. Pairs: decomposable attention on words without context (hidden size
200) and batches of 64. All estimators take turns on the same batches, so that a busy machine is unfair to none. Words are
numbered by their order; their vectors are random, which costs the same.
"""

import argparse
import csv
import json
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from hf_latent import BiLstmConfig, BiLstmModel, LatentTreeForPairClassification, LatentTreeForSequenceClassification
from hf_latent.models.bilstm import word_tokenizer

ESTIMATORS = ["marginals", "sparsemap", "perturb_and_map", "ste_marginals", "ste_identity", "spigot", "spigot_ce", "spigot_eg"]


def read_columns(path: Path, columns: list[str]) -> list[tuple[str, ...]]:
    """The texts of a tab-separated file: its first columns, or those that its header line names."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if line]
    places = list(range(len(columns)))
    if set(columns) <= set(lines[0]):
        places = [lines[0].index(name) for name in columns]
        lines = lines[1:]
    return [tuple(line[place].lower() for place in places) for line in lines]


def measure(texts: list[tuple[str, ...]], batch_size: int, steps: int) -> dict[str, float]:
    """The median of the milliseconds of a step, for no tree and for each estimator."""
    pairs = len(texts[0]) == 2
    tokenizer = word_tokenizer(sorted({word for row in texts for text in row for word in text.split()}), pairs=pairs)
    models: dict[str, tuple[PreTrainedModel, torch.optim.Optimizer]] = {}
    for name in ["none", *ESTIMATORS]:
        torch.manual_seed(0)
        config = {
            "vocab_size": len(tokenizer),
            "embedding_size": 100,
            "hidden_size": 200,
            "num_hidden_layers": 0 if pairs else 1,
        }
        model_class = LatentTreeForPairClassification if pairs else LatentTreeForSequenceClassification
        model = model_class.from_encoder(
            BiLstmModel(BiLstmConfig(**config)),
            tokenizer,
            num_labels=3 if pairs else 2,
            estimator=None if name == "none" else name,
            estimator_options={"step_size": 0.1} if name.startswith("spigot") or name == "ste_identity" else None,
            decoder_size=200 if pairs else 100,
        )
        models[name] = model.train(), torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in tqdm(range(steps), desc="Pairs" if pairs else "Sentences", unit="batch"):
        rows = [texts[place] for place in torch.randperm(len(texts), generator=generator)[:batch_size].tolist()]
        batch = tokenizer(*[list(column) for column in zip(*rows, strict=True)], padding=True, return_tensors="pt")
        labels = torch.randint(3 if pairs else 2, (batch_size,), generator=generator)
        for name, (model, optimizer) in models.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            model(**batch, labels=labels).loss.backward()
            optimizer.step()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(times[len(times) // 5 :]) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=Path, help="a tab-separated file, the text in its first column")
    parser.add_argument("--pairs", type=Path, help="a tab-separated file with two columns of texts")
    parser.add_argument("--pair_columns", nargs=2, default=["premise", "hypothesis"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks"))
    arguments = parser.parse_args()
    if arguments.sentences is None and arguments.pairs is None:
        parser.error("pass --sentences, --pairs, or both")
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    results = {}
    if arguments.sentences is not None:
        results["sentences, batches of 32"] = measure(read_columns(arguments.sentences, ["text"]), 32, arguments.steps)
    if arguments.pairs is not None:
        results["pairs, batches of 64"] = measure(read_columns(arguments.pairs, arguments.pair_columns), 64, arguments.steps)
    lines = ["| | " + " | ".join(f"{name} (ms) | ratio" for name in results) + " |", "|:--|" + "--:|--:|" * len(results)]
    for name in ["none", *ESTIMATORS]:
        cells = [f"{found[name]:.1f} | {found[name] / found['none']:.2f}×" for found in results.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    (arguments.output_dir / "training_step.json").write_text(
        json.dumps({"threads": torch.get_num_threads(), "milliseconds": results}, indent=1) + "\n"
    )
    (arguments.output_dir / "training_step.md").write_text(table + "\n")
    print(f"\n{table}")


if __name__ == "__main__":
    main()
