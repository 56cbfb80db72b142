r"""A parser of Universal Dependencies, on any encoder: heads and relations, learned from a treebank.

    python examples/dependency_parsing.py --encoder sentence-transformers/all-MiniLM-L6-v2 \
        --train_file en_ewt-ud-train.conllu --validation_file en_ewt-ud-dev.conllu --output_dir outputs/parser
    python examples/dependency_parsing.py --word_vectors glove.6B.100d.txt.gz \
        --dataset universal-dependencies/universal_dependencies --dataset_config en_ewt

Files are CoNLL-U, plain or gzipped; of a dataset of the Hub, the columns `tokens`, `head` and `deprel` are read. The output
folder gets the model with its card, what it makes of the validation sentences (`predicted.conllu`), and tables of figures: by
epoch, and by what is decoded, of the four kinds of trees and of a greedy choice of heads, which need not be trees at all.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from datasets import Dataset, load_dataset
from tables import markdown
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Trainer, TrainingArguments, set_seed

from hf_latent import (
    BiLstmModel,
    DataCollatorForLatentTrees,
    DependencyTree,
    LatentTreeForDependencyParsing,
    encode_words,
    parse,
)
from hf_latent.files import write_file
from hf_latent.model_cards import ModelCardCallback
from hf_latent.training import encoder_parameter_groups, parsing_metrics
from hf_latent.trees import (
    ConlluSentence,
    Tree,
    attachment_score,
    baseline_trees,
    parsing_scores,
    read_conllu,
    read_conllu_sentences,
    write_conllu,
)
from hf_latent.trees import heads as of_heads

EVALUATED_TOGETHER = 64
DECODERS = {
    f"{'projective' if projective else 'non-projective'}, {'one root' if single_root else 'any roots'}": DependencyTree(
        projective, single_root
    )
    for projective in (True, False)
    for single_root in (True, False)
}


class Treebank(NamedTuple):
    """Trees to learn from, those to evaluate on, and, if they come from a file, the sentences that these stand in."""

    train: list[Tree]
    validation: list[Tree]
    sentences: list[ConlluSentence] | None


def read_treebank(arguments: argparse.Namespace) -> Treebank:
    bad = "skip" if arguments.skip_bad_sentences else "error"
    if arguments.dataset:
        data = load_dataset(arguments.dataset, arguments.dataset_config)
        return Treebank(*(trees_of(data[split], split, bad) for split in ("train", "validation")), None)
    sentences = []
    trees = []
    for sentence in read_conllu_sentences(arguments.validation_file, bad):
        try:
            trees.append(sentence.tree(single_root=arguments.single_root))
            sentences.append(sentence)
        except ValueError:
            if bad == "error":
                raise
    return Treebank(read_conllu(arguments.train_file, arguments.single_root, bad_sentences=bad), trees, sentences)


def trees_of(data: Dataset, split: str, bad: str) -> list[Tree]:
    trees = []
    for row, example in enumerate(data):
        try:
            trees.append(Tree(example["tokens"], list(map(int, example["head"])), relations=example["deprel"]))
        except (TypeError, ValueError) as error:
            if bad == "error":
                raise SystemExit(f"{split}, sentence {row}: {error}") from None
    return trees


def new_model(
    arguments: argparse.Namespace, treebank: Treebank
) -> tuple[LatentTreeForDependencyParsing, PreTrainedTokenizerBase]:
    counts = Counter(relation for tree in (*treebank.train, *treebank.validation) for relation in tree.relations)
    options = {
        "relations": [relation for relation, _ in counts.most_common()],
        "projective": arguments.projective,
        "single_root": arguments.single_root,
        "impossible_heads": "skip",
    }
    if arguments.encoder:
        tokenizer = AutoTokenizer.from_pretrained(arguments.encoder)
        return LatentTreeForDependencyParsing.from_encoder(arguments.encoder, tokenizer, **options), tokenizer
    vocabulary = {word.lower() for tree in (*treebank.train, *treebank.validation) for word in tree.words}
    sizes = {"hidden_size": 400, "num_hidden_layers": 2, "dropout": 0.33}
    encoder, tokenizer = BiLstmModel.from_word_vectors(arguments.word_vectors, vocabulary, **sizes)
    return LatentTreeForDependencyParsing.from_encoder(encoder, tokenizer, **options), tokenizer


def features(model: LatentTreeForDependencyParsing, tokenizer: PreTrainedTokenizerBase, trees: list[Tree]) -> Dataset:
    """Words that are beyond what the encoder takes are cut off."""
    columns = encode_words(
        tokenizer,
        [tree.words for tree in trees],
        heads=[tree.heads for tree in trees],
        relations=[[model.config.label2id[relation] for relation in tree.relations] for tree in trees],
        max_length=model.latent_tree.longest_text,
    )
    return Dataset.from_dict(columns)


def new_trainer(
    arguments: argparse.Namespace,
    model: LatentTreeForDependencyParsing,
    tokenizer: PreTrainedTokenizerBase,
    treebank: Treebank,
) -> Trainer:
    by_length = sorted(treebank.validation, key=lambda tree: -len(tree.words))
    groups = encoder_parameter_groups(
        model, arguments.learning_rate, arguments.encoder_learning_rate or arguments.learning_rate, weight_decay=0.01
    )
    return Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(arguments.output_dir),
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=arguments.batch_size,
            per_device_eval_batch_size=EVALUATED_TOGETHER,
            learning_rate=arguments.learning_rate,
            warmup_steps=0.1,
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            seed=arguments.seed,
        ),
        train_dataset=features(model, tokenizer, treebank.train),
        eval_dataset=features(model, tokenizer, by_length),
        data_collator=DataCollatorForLatentTrees(tokenizer),
        processing_class=tokenizer,
        compute_metrics=parsing_metrics(model.config.id2label),
        optimizer_cls_and_kwargs=(torch.optim.AdamW, {"params": groups}),
    )


Decoded = dict[str, tuple[list[list[int]], list[list[str]]]]


@torch.no_grad()
def decoded(model: LatentTreeForDependencyParsing, collator: DataCollatorForLatentTrees, data: Dataset) -> Decoded:
    """By each of the decoders, and greedily, the heads and relations of all sentences, from the same scores of arcs."""
    found: Decoded = {name: ([], []) for name in ("greedy", *DECODERS)}
    names = model.config.id2label
    model.eval()
    for start in range(0, len(data), EVALUATED_TOGETHER):
        rows = data.select(range(start, min(start + EVALUATED_TOGETHER, len(data))))
        batch = collator(list(rows.remove_columns(["heads", "relations"])))
        output = model(**{name: value.to(model.device) for name, value in batch.items()})
        scores, num_words = output.arc_scores, output.num_words
        allowed = DependencyTree(projective=False).mask(scores, num_words)
        choices = {"greedy": scores.masked_fill(~allowed, -torch.inf).argmax(-1)}
        choices |= {name: structure.argmax(scores, num_words).argmax(-1) for name, structure in DECODERS.items()}
        for name, heads in choices.items():
            relations = model.label(output.last_hidden_state, heads)[1]
            for own_heads, own_relations, n in zip(heads.tolist(), relations.tolist(), num_words.tolist(), strict=True):
                found[name][0].append(own_heads[:n])
                found[name][1].append([names[number] for number in own_relations[:n]])
    return found


def decoding_table(found: Decoded, gold_heads: list[list[int]], gold_relations: list[list[str]]) -> dict[str, dict[str, float]]:
    """Of each decoder its scores, and how many sentences have no tree, not one root, or crossing arcs."""
    table = {}
    for name, (heads, relations) in found.items():
        table[name] = {
            **parsing_scores(heads, gold_heads, relations, gold_relations),
            "no tree": sum(not of_heads.is_tree(own) for own in heads),
            "not one root": sum(own.count(0) != 1 for own in heads),
            "crossing arcs": sum(not of_heads.is_projective(own) for own in heads),
        }
    return table


def in_markdown(table: dict[str, dict[str, float]]) -> str:
    shown = {
        name: [f"{value:.2%}" if isinstance(value, float) else f"{value}" for value in row.values()]
        for name, row in table.items()
    }
    return markdown(list(next(iter(table.values()))), [[name, *row] for name, row in shown.items()])


def evaluate(trainer: Trainer) -> dict[str, dict[str, float]]:
    """The table of decoders, on the validation sentences."""
    names, data = trainer.model.config.id2label, trainer.eval_dataset
    gold_relations = [[names[number] for number in row] for row in data["relations"]]
    found = decoded(trainer.model, trainer.data_collator, data)
    return decoding_table(found, list(data["heads"]), gold_relations)


def write_predictions(trainer: Trainer, treebank: Treebank, path: Path) -> list[Tree]:
    """Heads and relations in the place of the gold ones; all else is as it was."""
    tokenizer = trainer.processing_class
    trees = parse(trainer.model, tokenizer, [tree.words for tree in treebank.validation], batch_size=EVALUATED_TOGETHER)
    if treebank.sentences is None:
        write_conllu(trees, path)
    else:
        write_conllu([one.with_tree(tree) for one, tree in zip(treebank.sentences, trees, strict=True)], path)
    return trees


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    encoder = parser.add_mutually_exclusive_group(required=True)
    encoder.add_argument("--encoder", help="any model of transformers that reads text: a name on the Hub, or a folder")
    encoder.add_argument("--word_vectors", type=Path, help="for a BiLSTM: in GloVe's text format (.txt or .gz)")
    parser.add_argument("--train_file", type=Path)
    parser.add_argument("--validation_file", type=Path)
    parser.add_argument("--dataset", help="on the Hub, or a folder, in the place of files")
    parser.add_argument("--dataset_config")
    parser.add_argument("--skip_bad_sentences", action="store_true", help="leave out sentences that cannot be read")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/dependency_parsing"))
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of all but the encoder")
    parser.add_argument("--encoder_learning_rate", type=float, help="by default 1e-4; of a BiLSTM, the other one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--projective", action="store_true", help="only trees without crossing arcs; by default, all trees")
    parser.add_argument("--any_roots", dest="single_root", action="store_false", help="by default, trees have one root")
    arguments = parser.parse_args()
    if bool(arguments.dataset) == bool(arguments.train_file and arguments.validation_file):
        parser.error("pass --train_file and --validation_file, or --dataset")
    if arguments.encoder and arguments.encoder_learning_rate is None:
        arguments.encoder_learning_rate = 1e-4
    return arguments


def main() -> None:
    arguments = read_arguments()
    set_seed(arguments.seed)
    started = time.time()
    treebank = read_treebank(arguments)
    model, tokenizer = new_model(arguments, treebank)
    trainer = new_trainer(arguments, model, tokenizer, treebank)
    example = " ".join(min(treebank.validation, key=lambda tree: abs(len(tree.words) - 8)).words)
    trainer.add_callback(ModelCardCallback(trainer, example, dataset=arguments.dataset))
    trainer.train()
    trainer.save_model()
    minutes = (time.time() - started) / 60
    trees = write_predictions(trainer, treebank, arguments.output_dir / "predicted.conllu")
    table = evaluate(trainer)
    baselines = baseline_trees(treebank.validation, arguments.seed)
    scores = {"parser": attachment_score(trees, treebank.validation)}
    scores |= {name: attachment_score(own, treebank.validation) for name, own in baselines.items()}
    by_epoch = [
        {name: entry[f"eval_{name}"] for name in ("loss", "uas", "las", "clas")}
        for entry in trainer.state.log_history
        if "eval_uas" in entry
    ]
    results = {"attachment_score": scores, "by_epoch": by_epoch, "decoding": table, "minutes": minutes}
    results["arguments"] = vars(arguments)
    write_file(arguments.output_dir / "results.json", json.dumps(results, indent=2, default=str) + "\n")
    write_file(arguments.output_dir / "decoding.md", in_markdown(table))
    print(f"\nLearned in {minutes:.0f} minutes. Attachment score (unlabelled, all words)")
    for name, score in scores.items():
        print(f"  {name:20}{100 * score:6.1f} %")
    print(f"\n{in_markdown(table)}")


if __name__ == "__main__":
    main()
