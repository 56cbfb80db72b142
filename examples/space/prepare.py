"""Train models for the Space on the language of `examples/little_language.py`: no network, and nobody's data. Some minutes.

    python examples/space/prepare.py

Saves each with its tokenizer in `models/` and lists them in `models.json`, which `app.py` reads. No model is shown a tree.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_latent import parse
from hf_latent.files import write_file
from hf_latent.models.bilstm import word_tokenizer
from hf_latent.trees import Tree, attachment_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from demo import accuracy, best_of_starts
from little_language import WORD_CLASS, WORDS, Sentence, generate

LABELS = ["discord", "harmony"]
SEASONS = ["spring", "summer", "autumn", "winter"]
CLASSES_ONLY, ALL_WORDS = "Little language", "Little language, words in sight"
ABOUT = {
    CLASSES_ONLY: "The parser sees of each word whether it is an adjective, a noun or a preposition, and no more; what the "
    "decoder sees are seasons.",
    ALL_WORDS: "The parser sees the words, so that it can find the label by itself and tell it to the decoder through the "
    "shape of the tree. The labels may be right, then, and the trees are wrong.",
}
SIGHT = {CLASSES_ONLY: {}, ALL_WORDS: {"parser_input": "encoder", "decoder_input": "embeddings"}}
# Which models there are for each, with the options of their estimators.
ESTIMATORS = {
    CLASSES_ONLY: {"spigot_ce": {"step_size": 0.1}, "perturb_and_map": {}, "sparsemap": {}, None: {}},
    ALL_WORDS: {"spigot_ce": {"step_size": 0.1}, "sparsemap": {}},
}
LANGUAGE = """
A sentence is a chain of noun phrases, and each word belongs to a season. A word gets along with its head if the head's season
is its own or the one after it (ROOT's is spring). The label is *harmony* if more words than not get along with their heads,
else *discord*. In the true tree, which no model saw, an adjective hangs from the next noun, a preposition from the noun before
it, a noun from the preposition before it, and the first noun from ROOT. The adjectives, nouns and prepositions of each season:
"""
EXAMPLES = [
    "sunny beach under frosty pine beside harvest",
    "fresh meadow without golden misty pumpkin",
    "silent snow after tender blossom",
]


def encode(sentences: list[Sentence], tokenizer: PreTrainedTokenizerBase) -> Dataset:
    words = [sentence.words for sentence in sentences]
    labels = [sentence.label for sentence in sentences]
    return Dataset.from_dict({**tokenizer([" ".join(one) for one in words]), "words": words, "labels": labels})


def describe(task: str, figures: dict[str, tuple[float, float | None]]) -> str:
    """Markdown: what the task is, its words, and how often the models are right."""
    words = [
        f"- {season}: " + "; ".join(", ".join(groups[number]) for groups in WORDS.values())
        for number, season in enumerate(SEASONS)
    ]
    rows = ["| right, of new sentences | labels | heads |", "|:--|--:|--:|"]
    for name, (labels, heads) in figures.items():
        rows.append(f"| {name} | {100 * labels:.1f} % | " + ("|" if heads is None else f"{100 * heads:.1f} % |"))
    return "\n".join(
        [
            ABOUT[task],
            "",
            "<details><summary>The language and its words</summary>",
            LANGUAGE,
            *words,
            "",
            *rows,
            "",
            "</details>",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent)
    parser.add_argument("--sentences", type=int, default=10_000, help="to train on; a tenth as many to test on")
    parser.add_argument("--epochs", type=float, default=10, help="on them")
    parser.add_argument("--starts", type=int, default=8, help="of each model with a tree, of which the best goes on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.sentences < 100:
        parser.error(f"--sentences must be 100 or more, to leave some to test on, got {arguments.sentences}")
    torch.set_num_threads(1)  # in models as small as these, threads wait for each other most of the time
    tokenizer = word_tokenizer(WORD_CLASS)
    training = generate(arguments.sentences, seed=1)
    known = {sentence.words for sentence in training}
    test = [sentence for sentence in generate(arguments.sentences // 10, seed=2) if sentence.words not in known]
    train_data, test_data = encode(training, tokenizer), encode(test, tokenizer)
    gold = [Tree(sentence.words, sentence.heads) for sentence in test]
    tasks = {}
    for task, estimators in ESTIMATORS.items():
        figures, folders = {}, []
        for estimator, options in estimators.items():
            name = estimator or "no tree"
            print(f"\n{task}: {name}")
            starts = 1 if estimator is None else arguments.starts
            trainer = best_of_starts(
                tokenizer,
                train_data,
                estimator,
                starts,
                arguments.seed,
                arguments.epochs,
                estimator_options=options,
                **SIGHT[task],
            )
            model = trainer.model
            model.config.id2label = dict(enumerate(LABELS))
            model.config.label2id = {name: number for number, name in enumerate(LABELS)}
            heads = None
            if estimator is not None:
                heads = attachment_score(parse(model, tokenizer, [tree.words for tree in gold]), gold)
            figures[name] = accuracy(model, tokenizer, test_data), heads
            folders.append(f"models/{'classes' if task == CLASSES_ONLY else 'words'}-{name.replace(' ', '_')}")
            model.save_pretrained(arguments.output_dir / folders[-1])
            tokenizer.save_pretrained(arguments.output_dir / folders[-1])
        tasks[task] = {"models": folders, "examples": EXAMPLES, "about": describe(task, figures)}
        print(f"\n{tasks[task]['about']}")
    file = arguments.output_dir / "models.json"
    write_file(file, json.dumps(tasks, indent=2, ensure_ascii=False) + "\n")
    print(f"\nThe models are listed in {file}. See their trees: python {Path(__file__).with_name('app.py')}")


if __name__ == "__main__":
    main()
