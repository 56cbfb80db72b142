r"""What a parse costs beside its encoder: milliseconds of both for all sentences of a treebank, on the same batches.

    python examples/benchmarks/parsing.py --model outputs/parser --treebank en_ewt-ud-dev.conllu --output_dir outputs/benchmarks

The model is one of `examples/dependency_parsing.py`. Its encoder and the whole parser take turns on each batch, so that a busy
machine is unfair to neither. A parse is the call of the model, to heads, relations and the marginals of the arcs.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoTokenizer

from hf_latent import DataCollatorForLatentTrees, LatentTreeForDependencyParsing, encode_words
from hf_latent.files import write_file
from hf_latent.trees import read_conllu


def measure(model_folder: Path, treebank: Path, batch_size: int, turns: int) -> list[tuple[float, float]]:
    """For each turn through the sentences, sorted by length, the milliseconds of the encoder and of the parser."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = LatentTreeForDependencyParsing.from_pretrained(model_folder).eval()
    encoder, collator = model.base_model.encoder, DataCollatorForLatentTrees(tokenizer)
    words = sorted((tree.words for tree in read_conllu(treebank)), key=len)
    columns = encode_words(tokenizer, words)
    examples = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    batches = [collator(examples[first : first + batch_size]) for first in range(0, len(examples), batch_size)]
    found = []
    with torch.no_grad():
        for turn in range(-1, turns):  # the first, in which kernels are compiled, does not count
            spent = [0.0, 0.0]
            for batch in tqdm(batches, desc=f"Turn {turn + 1} of {turns}", leave=False):
                tokens = {name: value for name, value in batch.items() if name != "word_ids"}
                for place, call in enumerate((lambda: encoder(**tokens), lambda: model(**batch))):  # noqa: B023
                    started = time.perf_counter()
                    call()
                    spent[place] += time.perf_counter() - started
            if turn >= 0:
                found.append((1000 * spent[0], 1000 * spent[1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the folder of a saved parser")
    parser.add_argument("--treebank", type=Path, required=True, help="CoNLL-U, plain or gzipped")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks"))
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    found = measure(arguments.model, arguments.treebank, arguments.batch_size, arguments.turns)
    encoder, whole = (statistics.median(each) for each in zip(*found, strict=True))
    ratios = [both / alone for alone, both in found]
    row = {"encoder": encoder, "parser": whole, "ratio": statistics.median(ratios), "ratios": ratios}
    write_file(arguments.output_dir / "parsing.json", json.dumps({**row, "threads": torch.get_num_threads()}, indent=1) + "\n")
    print(
        f"Encoder {encoder:.0f} ms, parser {whole:.0f} ms: {row['ratio']:.3f} times (of single turns, {min(ratios):.3f} to "
        f"{max(ratios):.3f}), {torch.get_num_threads()} threads, batches of {arguments.batch_size}."
    )


if __name__ == "__main__":
    main()
