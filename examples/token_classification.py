r"""Tag words (parts of speech, named entities) through a latent dependency tree.

    python examples/token_classification.py --train_file en_ewt-ud-train.conllu --validation_file en_ewt-ud-dev.conllu \
        --word_vectors glove.6B.100d.txt.gz --estimator spigot --output_dir outputs/tags

    python examples/token_classification.py --dataset_name unimelb-nlp/wikiann --dataset_config_name en \
        --words_column tokens --labels_column ner_tags --encoder bert-base-cased --learning_rate 2e-5 \
        --estimator marginals --output_dir outputs/entities

Files are CoNLL-U, plain or gzipped, of which the universal parts of speech are learned. `--estimator none` trains the same
network without a tree: the baseline.
"""

import dataclasses
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
from classification import Arguments, ModelArguments, load_encoder, new_model, number_labels, report, what_was_run
from sklearn.metrics import f1_score
from transformers import EvalPrediction, HfArgumentParser, Trainer, set_seed

from hf_latent import DataCollatorForLatentTrees, LatentTreeForTokenClassification, encode_words, parse
from hf_latent.files import read_text
from hf_latent.model_cards import ModelCardCallback
from hf_latent.trees import read_conllu

IGNORED = -100
SPLITS = ("train", "validation", "test")


@dataclass
class DataArguments:
    train_file: str | None = field(default=None, metadata={"help": "Training data in CoNLL-U, plain or gzipped (.gz)."})
    validation_file: str | None = field(default=None, metadata={"help": "Data to choose the best epoch by."})
    test_file: str | None = field(default=None, metadata={"help": "Data to report on at the end."})
    dataset_name: str | None = field(default=None, metadata={"help": "A dataset on the Hub, in place of files."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    words_column: str = field(default="tokens", metadata={"help": "Its column with the words of each sentence."})
    labels_column: str = field(default="ner_tags", metadata={"help": "Its column with the labels of these words."})
    max_length: int = field(default=256, metadata={"help": "Longer sentences are cut, in tokens."})


def read_data(arguments: DataArguments) -> datasets.DatasetDict:
    """The splits `train`, `validation` and, where there is one, `test`, with columns `words`, `labels` and `text`."""
    if arguments.dataset_name is not None:
        data = read_dataset(arguments)
    elif arguments.train_file is None or arguments.validation_file is None:
        raise SystemExit("Pass --train_file and --validation_file, or --dataset_name. See --help.")
    else:
        files = (arguments.train_file, arguments.validation_file, arguments.test_file)
        data = {split: read_tags(Path(file)) for split, file in zip(SPLITS, files, strict=True) if file is not None}
    return datasets.DatasetDict(
        {split: part.add_column("text", [" ".join(words) for words in part["words"]]) for split, part in data.items()}
    )


def read_tags(path: Path) -> datasets.Dataset:
    """The words of a treebank in CoNLL-U and, as labels, their universal parts of speech, which stand in the fourth column."""
    words = [list(tree.words) for tree in read_conllu(path)]
    fields = [line.split("\t") for _, line in read_text(path, "CoNLL-U file")]
    tags = iter([own[3] for own in fields if own[0].isdigit()])
    return datasets.Dataset.from_dict({"words": words, "labels": [[next(tags) for _ in own] for own in words]})


def read_dataset(arguments: DataArguments) -> dict[str, datasets.Dataset]:
    """The splits of a dataset on the Hub, whose columns must fit each other."""
    columns = {arguments.words_column: "words", arguments.labels_column: "labels"}
    loaded = datasets.load_dataset(arguments.dataset_name, arguments.dataset_config_name)
    missing = sorted({"train", "validation"} - set(loaded))
    if missing:
        raise SystemExit(f"{arguments.dataset_name} has no {missing[0]} data; it has {', '.join(loaded)}. Choose another.")
    data = {}
    for split in [split for split in SPLITS if split in loaded]:
        lists = [name for name, feature in loaded[split].features.items() if hasattr(feature, "feature")]
        absent = [name for name in columns if name not in lists]
        if absent:
            raise SystemExit(
                f"The {split} data has no column {absent[0]!r} with a list for each sentence; those that are lists are: "
                f"{', '.join(lists) or 'none'}. Name the columns with --words_column and --labels_column."
            )
        part = loaded[split].select_columns(list(columns))
        data[split] = part.rename_columns({old: new for old, new in columns.items() if old != new})
        for row, (words, labels) in enumerate(zip(data[split]["words"], data[split]["labels"], strict=True)):
            if len(words) != len(labels):
                raise SystemExit(
                    f"The {split} data has {len(words)} words and {len(labels)} labels in sentence {row}. Pass columns that "
                    "belong together as --words_column and --labels_column."
                )
    return data


def number_labels_of_words(data: datasets.DatasetDict) -> tuple[datasets.DatasetDict, list[str]]:
    """The data with labels numbered from 0, and their names."""
    flat = {}  # a row a word
    for split, part in data.items():
        columns = {"word": list(chain(*part["words"])), "label": list(chain(*part["labels"]))}
        flat[split] = datasets.Dataset.from_dict(columns).cast_column("label", part.features["labels"].feature)
    numbered, names = number_labels(datasets.DatasetDict(flat))
    found = {}
    for split, part in data.items():
        labels = iter(numbered[split]["label"])
        own = [[next(labels) for _ in words] for words in part["words"]]
        found[split] = part.remove_columns("labels").add_column("labels", own)
    return datasets.DatasetDict(found), names


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """The share of words with the right label."""
    known = prediction.label_ids != IGNORED
    return {"accuracy": float(np.mean(prediction.predictions.argmax(-1)[known] == prediction.label_ids[known]))}


def main() -> None:
    parser = HfArgumentParser((DataArguments, ModelArguments, Arguments))
    parser.set_defaults(output_dir="outputs/token_classification")
    data_arguments, model_arguments, arguments = parser.parse_args_into_dataclasses()
    set_seed(arguments.seed)
    data, names = number_labels_of_words(read_data(data_arguments))
    encoder, tokenizer = load_encoder(model_arguments, data, pairs=False, add_prefix_space=True)
    model = new_model(LatentTreeForTokenClassification, encoder, tokenizer, names, model_arguments)
    encoded = {
        split: part.map(
            lambda rows: encode_words(tokenizer, rows["words"], labels=rows["labels"], max_length=data_arguments.max_length),
            batched=True,
            remove_columns=part.column_names,
        )
        for split, part in data.items()
    }
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        data_collator=DataCollatorForLatentTrees(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    trainer.add_callback(ModelCardCallback(trainer, data["validation"]["text"][0], dataset=data_arguments.dataset_name))
    trained = trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    trainer.save_model()
    arguments.train_sampling_strategy = "sequential"  # evaluation follows it, and sentences are shown beside their tags
    prediction = trainer.predict(encoded["validation"])
    found, known = prediction.predictions.argmax(-1), prediction.label_ids != IGNORED
    f1 = f1_score(prediction.label_ids[known], found[known], labels=range(len(names)), average=None, zero_division=0)
    results = {
        **what_was_run(model, arguments),
        "validation_accuracy": prediction.metrics["test_accuracy"],
        "train_seconds": trained.metrics["train_runtime"],
    }
    if "test" in encoded:
        results["test_accuracy"] = trainer.evaluate(encoded["test"])["eval_accuracy"]
    results |= {f"validation_f1_{name}": value for name, value in zip(names, f1.tolist(), strict=True)}
    report(results, arguments.output_dir)
    print("\nThe first validation sentences, as the model tags them:\n")
    sentences = data["validation"]["words"][:]
    whole = [row for row, words in enumerate(sentences) if known[row].sum() == len(words)]  # those that were not cut
    for row in whole[:3]:
        tags = [names[label] for label in found[row][known[row]]]
        tagged = [f"{word}/{tag}" for word, tag in zip(sentences[row], tags, strict=True)]
        if model.config.estimator is None:
            print(" ".join(tagged), end="\n\n")
        else:
            (tree,) = parse(model, tokenizer, [sentences[row]])
            print(dataclasses.replace(tree, words=tagged).to_text(), end="\n\n")


if __name__ == "__main__":
    main()
