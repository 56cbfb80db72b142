"""What `text_classification.py` and `natural_language_inference.py` share: data, encoder, training, results."""

import csv
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from tokenizers import pre_tokenizers
from transformers import (
    AutoModel,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_latent import BiLstmModel, get_estimator, list_estimators, parse
from hf_latent.estimators import DEFAULT_ESTIMATOR
from hf_latent.files import read_text, shorten, write_file
from hf_latent.model_cards import ModelCardCallback

TEXTS = ("text", "text_pair")


@dataclass
class DataArguments:
    train_file: str | None = field(
        default=None,
        metadata={"help": "Training data: .csv, .tsv or .txt (tab-separated), with or without a header line; .json or .jsonl."},
    )
    validation_file: str | None = field(default=None, metadata={"help": "Data to choose the best epoch by."})
    test_file: str | None = field(default=None, metadata={"help": "Data to report on at the end."})
    dataset_name: str | None = field(default=None, metadata={"help": "A dataset on the Hub, in place of files."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    text_columns: list[str] = field(
        default_factory=lambda: ["text"], metadata={"help": "The column with the text, or the two with the texts of a pair."}
    )
    label_column: str = field(default="label", metadata={"help": "Name of the column with the label."})
    max_length: int = field(default=128, metadata={"help": "Longer texts are cut, in tokens."})


@dataclass
class ModelArguments:
    encoder: str | None = field(default=None, metadata={"help": "A pretrained encoder: a name on the Hub or a folder."})
    word_vectors: str | None = field(
        default=None, metadata={"help": "Word vectors in GloVe's text format (.txt or .gz), for a BiLSTM encoder."}
    )
    freeze_word_vectors: bool = field(default=False, metadata={"help": "Keep the word vectors as they are."})
    split_punctuation: bool = field(default=False, metadata={"help": "Split words at punctuation, not at white space alone."})
    lstm_size: int = field(default=100, metadata={"help": "Hidden size of each direction of the BiLSTM."})
    lstm_layers: int = field(default=1, metadata={"help": "Its layers; 0 for word vectors without context."})
    estimator: str = field(
        default=DEFAULT_ESTIMATOR, metadata={"help": f"'none' for no tree, or one of: {', '.join(list_estimators())}."}
    )
    step_size: float = field(default=0.1, metadata={"help": "η of the pulled-back estimators."})
    num_steps: int = field(default=1, metadata={"help": "Inner steps of the pulled-back estimators."})
    arc_scorer: str = field(default="biaffine", metadata={"help": "'biaffine' or 'mlp'."})
    projective: bool = field(default=True, metadata={"help": "Only trees without crossing arcs."})
    single_root: bool = field(default=False, metadata={"help": "Only trees with one root."})
    decoder_size: int = field(default=100, metadata={"help": "Hidden size of the decoder."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout in the arc scorer and the decoder."})


@dataclass
class Arguments(TrainingArguments):
    """The Trainer's, with defaults for these tasks."""

    output_dir: str = field(default="outputs/classification")
    learning_rate: float = field(default=1e-3)
    per_device_train_batch_size: int = field(default=32)
    per_device_eval_batch_size: int = field(default=128)
    num_train_epochs: float = field(default=3)
    lr_scheduler_type: str = field(default="constant")
    eval_strategy: str = field(default="epoch")
    save_strategy: str = field(default="epoch")
    save_total_limit: int | None = field(default=1)
    load_best_model_at_end: bool = field(default=True)
    metric_for_best_model: str | None = field(default="accuracy")
    logging_steps: float = field(default=100)
    report_to: str = field(default="none")


def read_data(arguments: DataArguments) -> datasets.DatasetDict:
    """The splits `train`, `validation` and, where there is one, `test`, with columns `text` (and `text_pair`) and `label`."""
    columns = dict(zip([*arguments.text_columns, arguments.label_column], [*_texts(arguments), "label"], strict=True))
    if arguments.dataset_name is not None:
        data = datasets.load_dataset(arguments.dataset_name, arguments.dataset_config_name)
    elif arguments.train_file is None or arguments.validation_file is None:
        raise SystemExit("Pass --train_file and --validation_file, or --dataset_name. See --help.")
    else:
        files = {"train": arguments.train_file, "validation": arguments.validation_file, "test": arguments.test_file}
        data = datasets.DatasetDict(
            {split: read_file(Path(file), list(columns)) for split, file in files.items() if file is not None}
        )
    for split, part in data.items():
        missing = [name for name in columns if name not in part.column_names]
        if missing:
            raise SystemExit(
                f"The {split} data has no column {missing[0]!r}; it has {', '.join(part.column_names)}. "
                "Name the columns with --text_columns and --label_column."
            )
        if not len(part):
            raise SystemExit(f"The {split} data is empty: there is nothing to learn from or to measure.")
    renamed = {
        split: part.select_columns(list(columns)).rename_columns({old: new for old, new in columns.items() if old != new})
        for split, part in data.items()
    }
    # Of SNLI's pairs, -1 marks those that have no label.
    return datasets.DatasetDict({split: part.filter(lambda row: row["label"] != -1) for split, part in renamed.items()})


def _texts(arguments: DataArguments) -> tuple[str, ...]:
    if len(arguments.text_columns) > 2:
        raise SystemExit(f"--text_columns takes one column, or two for pairs, got {len(arguments.text_columns)}.")
    return TEXTS[: len(arguments.text_columns)]


def read_file(path: Path, columns: list[str]) -> datasets.Dataset:
    """One file, by its ending."""
    try:
        lines = [line for _, line in read_text(path, "file")]
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from None
    if not "".join(lines).strip():
        raise SystemExit(f"{path} is empty: there is nothing to learn from or to measure.")
    if path.suffix in (".json", ".jsonl"):
        try:
            return datasets.Dataset.from_json(str(path))
        except datasets.exceptions.DatasetGenerationError as error:
            raise SystemExit(f"{path} is not JSON with an object a line: {error.__cause__ or error}") from None
    return read_table(path, lines, columns)


def read_table(path: Path, rows: list[str], columns: list[str]) -> datasets.Dataset:
    """Comma-separated values, by the ending of the file, or else tab-separated text."""
    if path.suffix == ".csv":
        reader = csv.reader((f"{row}\n" for row in rows), strict=True)
        try:
            lines = [line for line in reader if line]
        except csv.Error as error:
            raise SystemExit(f"{path}, line {reader.line_num}: {error}.") from None
    else:  # which is not quoted: a quotation mark in it is one
        lines = [row.split("\t") for row in rows if row]
    names = columns
    if set(names) & set(lines[0]):
        names = lines.pop(0)
    for number, line in enumerate(lines, start=1):
        if len(line) != len(names):
            raise SystemExit(
                f"{path}, entry {number}: expected {len(names)} fields ({', '.join(names)}), got {len(line)}: "
                f"{shorten(str(line), 200)}."
            )
    return datasets.Dataset.from_dict({name: [line[place] for line in lines] for place, name in enumerate(names)})


def number_labels(data: datasets.DatasetDict) -> tuple[datasets.DatasetDict, list[str]]:
    """The data with labels numbered from 0, and their names."""
    feature = data["train"].features["label"]
    if isinstance(feature, datasets.ClassLabel):
        return data, feature.names
    names = sorted({str(label) for label in data["train"]["label"]})
    if len(names) < 2:
        raise SystemExit(f"The training data has one label only, {names[0]!r}: there is nothing to tell apart.")
    numbers = {name: number for number, name in enumerate(names)}
    numbered = {}
    for split, part in data.items():
        labels = [str(label) for label in part["label"]]
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise SystemExit(
                f"The {split} data has the label {unknown[0]!r}, which the training data ({', '.join(names)}) does not."
            )
        numbered[split] = part.remove_columns("label").add_column("label", [numbers[label] for label in labels])
    return datasets.DatasetDict(numbered), names


def load_encoder(
    arguments: ModelArguments, data: datasets.DatasetDict, pairs: bool, **tokenizer_options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder that was asked for, and its tokenizer; the options are for that of a pretrained one."""
    if (arguments.encoder is None) == (arguments.word_vectors is None):
        raise SystemExit("Pass either --encoder (a pretrained transformer) or --word_vectors (for a BiLSTM).")
    if arguments.encoder is not None:
        try:
            encoder = AutoModel.from_pretrained(arguments.encoder)
            return encoder, AutoTokenizer.from_pretrained(arguments.encoder, **tokenizer_options)
        except (OSError, ValueError) as error:
            raise SystemExit(f"--encoder {arguments.encoder} cannot be loaded: {error}") from None
    split = pre_tokenizers.BertPreTokenizer() if arguments.split_punctuation else pre_tokenizers.WhitespaceSplit()
    texts = (text.lower() for part in data.values() for column in TEXTS[: 1 + pairs] for text in part[column])
    return BiLstmModel.from_word_vectors(
        arguments.word_vectors,
        {word for text in texts for word, _ in split.pre_tokenize_str(text)},
        split_punctuation=arguments.split_punctuation,
        pairs=pairs,
        hidden_size=2 * arguments.lstm_size,
        num_hidden_layers=arguments.lstm_layers,
        freeze_embeddings=arguments.freeze_word_vectors,
    )


def new_model(
    model_class: type[PreTrainedModel],
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    names: list[str],
    arguments: ModelArguments,
) -> PreTrainedModel:
    """The model that was asked for, over this encoder, for labels of these names."""
    if arguments.estimator not in ("none", *list_estimators()):
        raise SystemExit(f"--estimator must be 'none' or one of {', '.join(list_estimators())}, got {arguments.estimator!r}.")
    estimator = None if arguments.estimator == "none" else arguments.estimator
    return model_class.from_encoder(
        encoder,
        tokenizer,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        estimator=estimator,
        estimator_options=None if estimator is None else options_of(estimator, arguments),
        arc_scorer=arguments.arc_scorer,
        arc_size=arguments.decoder_size,
        projective=arguments.projective,
        single_root=arguments.single_root,
        decoder_size=arguments.decoder_size,
        dropout=arguments.dropout,
    )


def options_of(estimator: str, arguments: ModelArguments) -> dict[str, Any]:
    """Of the options that the command line knows, those that the estimator has."""
    given = {"step_size": arguments.step_size, "num_steps": arguments.num_steps}
    return {name: value for name, value in given.items() if hasattr(get_estimator(estimator), name)}


def what_was_run(model: PreTrainedModel, arguments: TrainingArguments) -> dict[str, Any]:
    """What the results of a run begin with."""
    estimator = model.config.estimator
    return {
        "estimator": estimator or "none",
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate,
        "epochs": arguments.num_train_epochs,
        **({} if estimator is None else dataclasses.asdict(get_estimator(estimator, **model.config.estimator_options))),
    }


def report(results: dict[str, Any], output_dir: str) -> None:
    """Into `results.json`, and onto the screen."""
    write_file(Path(output_dir, "results.json"), json.dumps(results, indent=2, default=str) + "\n")
    print()
    for name, value in results.items():
        print(f"{name:24} {value:.4f}" if isinstance(value, float) else f"{name:24} {value}")


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}


def run(model_class: type[PreTrainedModel], data_defaults: dict, model_defaults: dict, defaults: dict) -> None:
    """Train, choose the best epoch, test, and show some trees: what the command line asks for, over these defaults."""
    parser = HfArgumentParser((DataArguments, ModelArguments, Arguments))
    parser.set_defaults(**data_defaults, **model_defaults, **defaults)
    data_arguments, model_arguments, arguments = parser.parse_args_into_dataclasses()
    set_seed(arguments.seed)
    data, names = number_labels(read_data(data_arguments))
    pairs = len(data_arguments.text_columns) == 2
    encoder, tokenizer = load_encoder(model_arguments, data, pairs)
    model = new_model(model_class, encoder, tokenizer, names, model_arguments)
    columns = list(TEXTS[: 1 + pairs])
    tokenized = data.map(
        lambda batch: tokenizer(*[batch[name] for name in columns], truncation=True, max_length=data_arguments.max_length),
        batched=True,
        remove_columns=columns,
        load_from_cache_file=False,
        desc="Tokenizing",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=tokenized["train"],
        eval_dataset=tokenized["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    example = [data["validation"][name][0] for name in columns]
    trainer.add_callback(ModelCardCallback(trainer, example, dataset=data_arguments.dataset_name))
    trained = trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    trainer.save_model()
    results = {
        **what_was_run(model, arguments),
        "validation_accuracy": trainer.evaluate()["eval_accuracy"],
        "train_seconds": trained.metrics["train_runtime"],
    }
    if "test" in tokenized:
        results["test_accuracy"] = trainer.evaluate(tokenized["test"])["eval_accuracy"]
    report(results, arguments.output_dir)
    if model.config.estimator is not None:
        print("\nTrees of the first validation sentences:\n")
        for tree in parse(model, tokenizer, data["validation"]["text"][:3]):
            print(tree.to_text(), end="\n\n")
