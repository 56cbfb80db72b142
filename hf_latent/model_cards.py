"""A model card from a model and its training run: written by hand, or by the Trainer as it goes."""

import dataclasses
import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from hf_latent.estimators import get_estimator
from hf_latent.files import shorten, write_file
from hf_latent.models.latent_tree.parsing import parse, without_adapters
from hf_latent.trees import side_by_side
from hf_latent.trees.drawing import shown

logger = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("model_card_template.md")
TASKS = {
    "LatentTreeForSequenceClassification": ("text-classification", "Text Classification", "classifies sentences"),
    "LatentTreeForPairClassification": ("text-classification", "Natural Language Inference", "classifies pairs of sentences"),
    "LatentTreeForTokenClassification": ("token-classification", "Token Classification", "labels words"),
    "LatentTreeModel": ("feature-extraction", "Parsing", "parses sentences"),
}
# Of a training run, what one would have to know to repeat it.
TRAINING = (
    "learning_rate",
    "lr_scheduler_type",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "seed",
    "bf16",
    "fp16",
)
# As the Hub takes them, of a model or a dataset.
HUB_NAME = re.compile(r"(?=.{1,96}$)([\w-][\w.-]*/)?[\w-][\w.-]*", re.ASCII)
# A name and a sentence that are longer are cut, in characters.
LONGEST_NAME, LONGEST_EXAMPLE = 200, 1000
# What evaluations report that says nothing of the model: the ends of such names.
NOT_QUALITY = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "epoch")
LEARNED = {
    False: "No tree was shown in training: the model chooses one for each sentence, and learned that from its labels alone.",
    True: "Gold trees were learned from, for all sentences or for some.",
}


def write_model_card(
    folder: str | os.PathLike,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    example: str | Sequence[str],
    dataset: str | None = None,
    metrics: Mapping[str, float] | None = None,
    split: str = "test",
    training: TrainingArguments | Mapping[str, Any] | None = None,
    base_model: str | None = None,
    language: str | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
    supervised: bool = False,
) -> Path:
    """Writes `README.md` and `tree.svg` into the folder of a saved model; returns the path of the card.

    Names and sentences are shown as they are, whatever markup they may have in them; very long ones are cut. (For a model that
    the Trainer trains and publishes, [`ModelCardCallback`] does it.)

    Args:
        name: the model's name, for its title and, as `owner/name` on the Hub, for the code that shows how to use it.
        example: a sentence, whose tree is drawn; or, for a model of pairs, two.
        dataset: the name on the Hub of the data that it was trained on.
        metrics: figures by their names, such as `{"accuracy": 0.83}`.
        split: the split of the dataset that they were measured on.
        training: the arguments of the Trainer, or a dictionary.
        base_model: the name on the Hub of the encoder that it started from; by default the one that it was loaded from.
        tags: beside our own.
        supervised: whether gold trees were learned from (`heads`).

    Raises:
        ValueError: a model that is not one of ours; an example that is not of the kind that it takes.
    """
    model = without_adapters(model)
    kind = type(model).__name__
    task, task_name, does = task_of(model)
    base_model = base_model or _loaded_from(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = [example] if isinstance(example, str) else list(example)
    if len(texts) != (2 if kind == "LatentTreeForPairClassification" else 1):
        raise ValueError(
            f"`example` must be one sentence, or two for a model of pairs; for a {kind}, got {shorten(repr(example))}."
        )
    metrics = numbers(metrics or {})
    drawn = model.config.estimator is not None
    if drawn:
        pictures = [tree.to_svg() for tree in parse(model, tokenizer, texts)]
        picture = pictures[0] if len(pictures) == 1 else side_by_side([pictures], [""] * len(pictures))
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        metadata=_metadata(name, task, task_name, dataset, metrics, split, base_model, language, license, tags),
        name=_text(name),
        summary=_summary(model, does, base_model),
        example=f"![{_text(' '.join(texts), LONGEST_EXAMPLE)}](tree.svg)" if drawn else "",
        usage=_usage(task, name, texts, drawn),
        structure=_structure(model),
        training=_training(dataset, training),
        results=_results(metrics, split),
        learned=LEARNED[supervised],
        words=_words(model),
    )
    if drawn:
        write_file(folder / "tree.svg", picture)
    write_file(folder / "README.md", text)
    return folder / "README.md"


def task_of(model: PreTrainedModel) -> tuple[str, str, str]:
    """The task as the Hub names it, in words, and in a verb."""
    kind = type(model).__name__
    if kind not in TASKS:
        raise ValueError(f"`model` must be a latent-tree model, one of {', '.join(TASKS)}, got a {kind}.")
    return TASKS[kind]


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those that are finite numbers; of dictionaries (a metric for each label), those in them, as `outer_inner`."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= {f"{name}_{inner}": number for inner, number in numbers(value).items()}
        elif isinstance(value, Real) and math.isfinite(value):
            found[name] = float(value)
    return found


def _text(text: str, longest: int = LONGEST_NAME) -> str:
    """Text in a line of Markdown, a table, or the description of a picture, where no sign of it is markup."""
    return re.sub(r"[\\`*\[\]<>&|~#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", shown(" ".join(text.split()), longest))


def _code(text: str) -> str:
    """Text as code in a cell of a table: between more backticks than stand together in it."""
    text = shown(text, LONGEST_NAME).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _string(text: str, longest: int = LONGEST_NAME) -> str:
    """Text as a string of Python, in double quotes, where nothing is hidden."""
    quoted = json.dumps(shorten(text, longest), ensure_ascii=False)
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in quoted)


def _metadata(
    name: str,
    task: str,
    task_name: str,
    dataset: str | None,
    metrics: Mapping[str, float],
    split: str,
    base_model: str | None,
    language: str | None,
    license: str | None,
    tags: Sequence[str],
) -> str:
    dataset = dataset and shown(dataset, LONGEST_NAME)
    on_hub = dataset if dataset and HUB_NAME.fullmatch(dataset) else None
    results = [
        EvalResult(
            task_type=task,
            task_name=task_name,
            dataset_type=on_hub or "unknown",
            dataset_name=dataset or "unknown",
            dataset_split=shown(split, LONGEST_NAME),
            metric_type=shown(key, LONGEST_NAME),
            metric_value=round(value, 4),
        )
        for key, value in metrics.items()
    ]
    data = ModelCardData(
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag=task,
        tags=list(dict.fromkeys(["hf_latent", "latent-structure", "dependency-trees", *(shown(tag, 64) for tag in tags)])),
        base_model=base_model if base_model and HUB_NAME.fullmatch(base_model) else None,
        datasets=[on_hub] if on_hub else None,
        metrics=sorted(shown(key, LONGEST_NAME) for key in metrics) or None,
        model_name=shown(name.split("/")[-1] or name, LONGEST_NAME),
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _loaded_from(model: PreTrainedModel) -> str | None:
    """Where the encoder was loaded from, if that looks like a name on the Hub and not like a folder."""
    name = model.config.text_config.name_or_path
    return name if HUB_NAME.fullmatch(name) and not Path(name).exists() else None


def _summary(model: PreTrainedModel, does: str, base_model: str | None) -> str:
    encoder = _text(base_model) if base_model else f"an encoder of type {_code(model.config.text_config.model_type)}"
    if model.config.estimator is None:
        return f"This model {does}. It is the baseline without a latent tree, on {encoder}."
    return (
        f"This model {does} through a latent dependency tree on {encoder}: a word is known by itself and by its head in a tree "
        "that the model finds, and shows. Made with hf_latent."
    )


def _usage(task: str, name: str, texts: Sequence[str], has_tree: bool) -> str:
    model = _string(name)
    strings = [_string(text, LONGEST_EXAMPLE) for text in texts]
    lines = [] if len(strings) == 1 else [f'pair = {{"text": {strings[0]}, "text_pair": {strings[1]}}}']
    if task != "feature-extraction":
        lines.append(f'print(pipeline("{task}", model={model})({strings[0] if len(strings) == 1 else "pair"}))')
    if has_tree:
        lines.append(f'print(pipeline("latent-tree-parsing", model={model})({strings[0]})["tree"].to_text())')
    return "\n".join(lines)


def _structure(model: PreTrainedModel) -> str:
    config = model.config
    if config.estimator is None:
        return "None: this is the baseline."
    estimator: Any = get_estimator(config.estimator, **(config.estimator_options or {}))
    options = {key: value for key, value in dataclasses.asdict(estimator).items() if value is not None}
    return _table(
        {
            "gradient estimator": _code(config.estimator),
            **{f"its {_code(key)}": _code(str(value)) for key, value in options.items()},
            "trees": f"{'projective' if config.projective else 'non-projective'}, "
            f"{'one root' if config.single_root else 'any number of roots'}",
            "arc scorer": f"{_text(config.arc_scorer)}, {config.arc_size} units",
            "the decoder sees": "the encoder's output" if config.decoder_input == "encoder" else "words without context",
        }
    )


def _training(dataset: str | None, training: TrainingArguments | Mapping[str, Any] | None) -> str:
    rows: dict[str, str] = {"data": _text(dataset) if dataset else "not named"}
    if training is not None:
        given = training.to_dict() if isinstance(training, TrainingArguments) else dict(training)
        # -1 and False say that an option was not used.
        rows |= {key: _text(f"{given[key]}") for key in TRAINING if given.get(key, False) is not False and given[key] != -1}
    return _table(rows)


def _results(metrics: Mapping[str, float], split: str) -> str:
    if not metrics:
        return "No figures were given."
    return f"On the {_text(split)} split:\n\n" + _table({_text(key): f"{value:.4f}" for key, value in metrics.items()})


def _words(model: PreTrainedModel) -> str:
    longest = model.base_model.longest_text
    if longest is None:
        return "It was tested on single sentences; memory grows with the square of the number of words."
    return f"It takes texts of at most {longest} tokens: pass `truncation=True` to a pipeline to have longer ones cut."


def _table(rows: Mapping[str, str]) -> str:
    """Of cells in Markdown."""
    return "\n".join(["| | |", "|:--|:--|", *[f"| {key} | {value} |" for key, value in rows.items()]])


class ModelCardCallback(TrainerCallback):
    """Writes the card when training ends, and in place of the Trainer's own when it publishes the model.

    Its figures are those of the last evaluation of the model as it is; with several evaluation sets, of all.

    >>> trainer.add_callback(ModelCardCallback(trainer, "A fascinating and fun film .", dataset="stanfordnlp/sst2"))
    >>> trainer.train()
    >>> trainer.push_to_hub(license="mit")

    A card that cannot be written does not end a training run: the reason is logged.

    Args:
        trainer: the Trainer, whose `processing_class` is the tokenizer.
        example: a sentence, whose tree is drawn; or, for a model of pairs, two.
        split: the name of the data that the Trainer evaluates on.
        dataset, base_model, language, license, tags, supervised: as [`write_model_card`] takes them.

    Raises:
        ValueError: a Trainer without a tokenizer, or with a model that is not one of ours.
    """

    def __init__(self, trainer: Trainer, example: str | Sequence[str], split: str = "validation", **options: Any) -> None:
        if trainer.processing_class is None:
            raise ValueError("The Trainer has no tokenizer: pass it `processing_class=tokenizer`.")
        task_of(without_adapters(trainer.model))
        self.trainer, self.example, self.split, self.options = trainer, example, split, options
        self.metrics: dict[str, float] = {}
        self.step = -1
        trainer.create_model_card = self.write

    def write(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | Sequence[str] | None = None,
        finetuned_from: str | None = None,
        dataset: str | None = None,
        **_: Any,
    ) -> None:
        """Writes the card into the Trainer's output folder; takes what `Trainer.create_model_card` takes."""
        trainer = self.trainer
        if not trainer.is_world_process_zero():
            return
        given = {
            "language": language,
            "license": license,
            "base_model": finetuned_from,
            "dataset": dataset,
            "tags": [tags] if isinstance(tags, str) else tags,
        }
        options = {**self.options, **{name: value for name, value in given.items() if value is not None}}
        write_model_card(
            trainer.args.output_dir,
            trainer.accelerator.unwrap_model(trainer.model),
            trainer.processing_class,
            getattr(trainer, "hub_model_id", None) or trainer.args.hub_model_id or Path(trainer.args.output_dir).name,
            self.example,
            metrics=self.metrics,
            split=self.split,
            training=trainer.args,
            **options,
        )

    def on_evaluate(self, args, state, control, metrics=None, **kwargs) -> None:
        found = _of_evaluation(metrics or {})
        if found:  # and not, say, of a test, with another prefix
            self.metrics = {**self.metrics, **found} if self.step == state.global_step else found
            self.step = state.global_step

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if args.load_best_model_at_end and state.best_global_step is not None:
            logged = [_of_evaluation(entry) for entry in state.log_history if entry["step"] == state.best_global_step]
            self.metrics = {name: value for found in logged for name, value in found.items()} or self.metrics
            self.step = state.global_step
        try:
            self.write()
        except Exception:
            logger.exception("The model card could not be written; the model itself is not affected.")


def _of_evaluation(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of an evaluation by their names without the Trainer's prefix."""
    return {
        name.removeprefix("eval_"): value
        for name, value in metrics.items()
        if name.startswith("eval_") and not name.endswith(NOT_QUALITY)
    }


__all__ = ["ModelCardCallback", "write_model_card"]
