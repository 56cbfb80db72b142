"""A model card from a model and its training run."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from hf_latent.estimators import get_estimator
from hf_latent.trees import parse

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


def write_model_card(
    folder: str | os.PathLike,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    example: str,
    dataset: str | None = None,
    metrics: Mapping[str, float] | None = None,
    training: TrainingArguments | Mapping[str, Any] | None = None,
    base_model: str | None = None,
    language: str = "en",
    license: str = "apache-2.0",
) -> Path:
    """Writes `README.md` and `tree.svg` into the folder of a saved model; returns the path of the card.

    Args:
        name: the model's name, for its title and, as `owner/name` on the Hub, for the code that shows how to use it.
        example: a sentence, whose tree is drawn.
        dataset: the name on the Hub of the data that it was trained on.
        metrics: figures by their names, such as `{"accuracy": 0.83}`, on the test split of the dataset.
        training: the arguments of the Trainer, or a dictionary.
        base_model: the name on the Hub of the encoder that it started from.

    Raises:
        ValueError: a model that is not one of ours.
    """
    kind = type(model).__name__
    if kind not in TASKS:
        raise ValueError(f"`model` must be a latent-tree model, one of {', '.join(TASKS)}, got a {kind}.")
    task, task_name, does = TASKS[kind]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = ""
    if model.config.estimator is not None:
        drawn = parse(model, tokenizer, [example])[0].to_svg()
        (folder / "tree.svg").write_text(drawn, encoding="utf-8")
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        metadata=_metadata(name, task, task_name, dataset, metrics or {}, base_model, language, license),
        name=name,
        summary=_summary(model, does, base_model),
        example=example,
        usage=_usage(kind, task, name, example, model.config.estimator is not None),
        structure=_structure(model),
        training=_training(dataset, training),
        results=_table({key: f"{value:.4f}" for key, value in (metrics or {}).items()}, "none were given"),
        words=_words(model),
    )
    if not drawn:
        text = text.replace(f"![{example}](tree.svg)\n\n", "")
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def _metadata(
    name: str,
    task: str,
    task_name: str,
    dataset: str | None,
    metrics: Mapping[str, float],
    base_model: str | None,
    language: str,
    license: str,
) -> str:
    results = [
        EvalResult(
            task_type=task,
            task_name=task_name,
            dataset_type=dataset or "unknown",
            dataset_name=dataset or "unknown",
            dataset_split="test",
            metric_type=key,
            metric_value=round(float(value), 4),
        )
        for key, value in metrics.items()
    ]
    data = ModelCardData(
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag=task,
        tags=["hf_latent", "latent-structure", "dependency-trees"],
        base_model=base_model,
        datasets=[dataset] if dataset else None,
        metrics=sorted(metrics) or None,
        model_name=name.split("/")[-1],
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _summary(model: PreTrainedModel, does: str, base_model: str | None) -> str:
    encoder = base_model or f"a {model.config.text_config.model_type} encoder"
    if model.config.estimator is None:
        return f"This model {does}. It is the baseline without a latent tree, on {encoder}."
    return (
        f"This model {does} through a latent dependency tree on {encoder}: a word is known by itself and by its head in a tree "
        "that the model finds, and shows. Made with [hf_latent](https://pypi.org/project/hf-latent/)."
    )


def _usage(kind: str, task: str, name: str, example: str, has_tree: bool) -> str:
    given = f'{{"text": {example!r}, "text_pair": {example!r}}}' if kind == "LatentTreeForPairClassification" else repr(example)
    lines = [f"print(pipeline({task!r}, model={name!r})({given}))"] if task != "feature-extraction" else []
    if has_tree:
        lines.append(f'print(pipeline("latent-tree-parsing", model={name!r})({example!r})["tree"].to_text())')
    return "\n".join(lines)


def _structure(model: PreTrainedModel) -> str:
    config = model.config
    if config.estimator is None:
        return "None: this is the baseline."
    estimator: Any = get_estimator(config.estimator, **(config.estimator_options or {}))
    return _table(
        {
            "gradient estimator": f"`{config.estimator}`",
            **{f"its `{key}`": f"`{value}`" for key, value in dataclasses.asdict(estimator).items()},
            "trees": f"{'projective' if config.projective else 'non-projective'}, "
            f"{'one root' if config.single_root else 'any number of roots'}",
            "arc scorer": f"{config.arc_scorer}, {config.arc_size} units",
            "the decoder sees": "the encoder's output" if config.decoder_input == "encoder" else "words without context",
        }
    )


def _training(dataset: str | None, training: TrainingArguments | Mapping[str, Any] | None) -> str:
    rows: dict[str, str] = {"data": dataset or "not named"}
    if training is not None:
        given = training.to_dict() if isinstance(training, TrainingArguments) else dict(training)
        rows |= {key: f"{given[key]}" for key in TRAINING if key in given}
    return _table(rows)


def _words(model: PreTrainedModel) -> str:
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is None:
        return "It was tested on single sentences; memory grows with the square of the number of words."
    return f"Texts of more than {longest} tokens are cut, and their last words have no place in the tree."


def _table(rows: Mapping[str, str], otherwise: str = "") -> str:
    if not rows:
        return otherwise
    return "\n".join(["| | |", "|:--|:--|", *[f"| {key} | {value} |" for key, value in rows.items()]])


__all__ = ["write_model_card"]
