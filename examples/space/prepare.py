"""Train models for the Space on the language of `examples/little_language.py`: no network, and nobody's data. Two minutes.

    python examples/space/prepare.py

Saves each with its tokenizer in `models/` and lists them in `models.json`, which `app.py` reads. No model is shown a tree.
"""

import argparse
import copy
import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerBase, set_seed

from hf_latent import BiLstmConfig, LatentTreeForSequenceClassification, parse
from hf_latent.files import write_file
from hf_latent.models.bilstm import word_tokenizer
from hf_latent.trees import Tree, attachment_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from demo import accuracy, new_model, train
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


def with_plain_encoder(
    model: LatentTreeForSequenceClassification, tokenizer: PreTrainedTokenizerBase
) -> LatentTreeForSequenceClassification:
    """The demo's model with a `BiLstmModel` for its encoder, which loads without the demo's code, and the labels' names.

    A word's vector is that of its season beside that of its class: the encoder's weights for the one are 0, and the decoder's
    for the other.
    """
    config, old = copy.deepcopy(model.config), model.config.text_config
    size = old.embedding_size
    config.text_config = BiLstmConfig(vocab_size=len(tokenizer), embedding_size=2 * size, hidden_size=old.hidden_size)
    config.id2label, config.label2id = dict(enumerate(LABELS)), {name: number for number, name in enumerate(LABELS)}
    weights = model.state_dict()
    encoder = "latent_tree.encoder."
    classes = weights.pop(f"{encoder}class_embeddings.weight")[weights.pop(f"{encoder}word_classes")]
    first_of_season = weights.pop(f"{encoder}embeddings.first_of_season")
    for name, weight in weights.items():
        if name == f"{encoder}embeddings.weight":
            weights[name] = torch.cat([weight[first_of_season], classes], dim=1)
        elif "weight_ih" in name:
            weights[name] = pad(weight, (size, 0))
        elif name == "latent_tree.head_averaging.root":
            weights[name] = pad(weight, (0, size))
        elif name == "decoder.0.weight":
            weights[name] = pad(weight.unflatten(1, (-1, size)), (0, size)).flatten(1)  # of a word, and of its head
    plain = LatentTreeForSequenceClassification(config)
    plain.load_state_dict(weights)
    return plain


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
    parser.add_argument("--epochs", type=float, default=13, help="on them")
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
            set_seed(arguments.seed)
            model = new_model(tokenizer, estimator, estimator_options=options)
            if task == ALL_WORDS:  # in a plain encoder, the weights for the words are learned, too
                model = with_plain_encoder(model, tokenizer)
            constant, falling = 0.4 * arguments.epochs, 0.6 * arguments.epochs
            train(model, tokenizer, train_data, constant, lr_scheduler_type="constant", seed=arguments.seed)
            train(model, tokenizer, train_data, falling, seed=arguments.seed)
            if task == CLASSES_ONLY:
                model = with_plain_encoder(model, tokenizer)
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
