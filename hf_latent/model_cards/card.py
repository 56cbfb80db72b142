"""The card of a latent-tree model: its metadata, and the sections that its template is filled with."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel, TrainingArguments

from hf_latent.estimators import get_estimator
from hf_latent.model_cards.facts import CardFacts
from hf_latent.model_cards.markdown import LONGEST_EXAMPLE, LONGEST_NAME, as_code, as_string, as_table, as_text
from hf_latent.model_cards.wording import WORDINGS
from hf_latent.models import registered_models
from hf_latent.models.latent_tree.parsing import has_trees
from hf_latent.models.registry import Task
from hf_latent.models.selection.configuration_selection import LatentSelectionConfig
from hf_latent.models.spans.configuration_crf import CRFConfig
from hf_latent.models.spans.configuration_segments import SegmentConfig
from hf_latent.reliance import Reliance
from hf_latent.trees.drawing import shown

TEMPLATE = Path(__file__).with_name("template.md")
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
# By the kinds that `Reliance.scores` has.
NAMES_OF_TREES = {
    "own": "its own trees",
    "random": "random trees",
    "flat": "flat trees",
    "left_branching": "left-branching trees",
    "right_branching": "right-branching trees",
    "shuffled": "trees of other sentences",
}


def model_card(model: PreTrainedModel, about: CardFacts, example: str = "") -> ModelCard:
    """The card of a model, with an `example` in Markdown of what it chooses, if it is to show one."""
    task, has_tree = task_of(model), has_trees(model)
    wording = WORDINGS[task.kind]
    return ModelCard.from_template(
        _metadata(task, about),
        template_str=TEMPLATE.read_text(encoding="utf-8") + "\n",  # of which the last is cut
        name=as_text(about.name),
        summary=_summary(model, task, about.base_model),
        example=example,
        usage=_usage(task, about, has_tree, task.kind == "selection" and model.config.estimator is not None),
        structure=_structure(model, task),
        training=_training(about),
        results=_results(about),
        heading=wording.heading,
        learned=wording.supervised if about.supervised and wording.supervised else wording.learned,
        limits=wording.limits,
        words=_words(model),
        citation=wording.citation,
    )


def task_of(model: PreTrainedModel) -> Task:
    """What the model is for.

    Raises:
        ValueError: a model that is not one of ours.
    """
    tasks = {name: known.task for name, known in registered_models().items()}
    task = tasks.get(type(model).__name__)
    if task is None:
        names = ", ".join(name for name, task in tasks.items() if task is not None)
        raise ValueError(f"`model` must be one of {names}, got a {type(model).__name__}.")
    return task


def _metadata(task: Task, about: CardFacts) -> ModelCardData:
    dataset = about.dataset and shown(about.dataset, LONGEST_NAME)
    on_hub = dataset if dataset and HUB_NAME.fullmatch(dataset) else None
    results = [
        EvalResult(
            task_type=task.pipeline,
            task_name=task.name,
            dataset_type=on_hub or "unknown",
            dataset_name=dataset or "unknown",
            dataset_split=shown(about.split, LONGEST_NAME),
            metric_type=shown(key, LONGEST_NAME),
            metric_value=round(value, 4),
        )
        for key, value in about.figures.items()
    ]
    return ModelCardData(
        language=about.language,
        license=about.license,
        library_name="transformers",
        pipeline_tag=task.pipeline,
        tags=list(dict.fromkeys([*WORDINGS[task.kind].tags, *(shown(tag, 64) for tag in about.tags)])),
        base_model=about.base_model if about.base_model and HUB_NAME.fullmatch(about.base_model) else None,
        datasets=[on_hub] if on_hub else None,
        metrics=sorted(shown(key, LONGEST_NAME) for key in about.figures) or None,
        model_name=shown(about.name.split("/")[-1] or about.name, LONGEST_NAME),
        eval_results=results or None,
    )


def loaded_from(model: PreTrainedModel) -> str | None:
    """Where the encoder was loaded from, if that looks like a name on the Hub and not like a folder."""
    name = model.config.text_config.name_or_path
    return name if HUB_NAME.fullmatch(name) and not Path(name).exists() else None


def _summary(model: PreTrainedModel, task: Task, base_model: str | None) -> str:
    encoder = as_text(base_model) if base_model else f"an encoder of type {as_code(model.config.text_config.model_type)}"
    if task.kind == "sequence":
        field = (
            "semi-Markov conditional random field" if isinstance(model.config, SegmentConfig) else "conditional random field"
        )
        return f"This model {task.does}, by a {field} on {encoder}. Made with hf_latent."
    if model.config.estimator is None:
        if task.kind == "selection":
            return f"This model classifies texts. It is the baseline that sees all words, on {encoder}."
        return f"This model {task.does}. It is the baseline without a latent tree, on {encoder}."
    if task.kind == "selection":
        return (
            f"This model {task.does}, which it finds by itself, and shows: the label comes from these words alone. It stands "
            f"on {encoder}. Made with hf_latent."
        )
    if task.kind == "parser":
        return f"This model {task.does}. Its trees always are trees. It stands on {encoder}. Made with hf_latent."
    return (
        f"This model {task.does} through a latent dependency tree on {encoder}: a word is known by itself and by its head in a "
        "tree that the model finds, and shows. Made with hf_latent."
    )


def _usage(task: Task, about: CardFacts, has_tree: bool, chooses_words: bool) -> str:
    model = as_string(about.name)
    strings = [as_string(text, LONGEST_EXAMPLE) for text in about.texts]
    lines = [] if len(strings) == 1 else [f'pair = {{"text": {strings[0]}, "text_pair": {strings[1]}}}']
    if task.kind == "parser":
        return f'print(pipeline("dependency-parsing", model={model})({strings[0]})["tree"].to_text())'
    if task.pipeline != "feature-extraction":
        lines.append(f'print(pipeline("{task.pipeline}", model={model})({strings[0] if len(strings) == 1 else "pair"}))')
    if chooses_words:
        lines = [f'print(pipeline("word-selection", model={model})({strings[0]})["rationale"].to_text())']
    if has_tree:
        lines.append(f'print(pipeline("latent-tree-parsing", model={model})({strings[0]})["tree"].to_text())')
    return "\n".join(lines)


def _structure(model: PreTrainedModel, task: Task) -> str:
    config = model.config
    if isinstance(config, SegmentConfig):
        return as_table({"labels": str(config.num_labels), "a span has at most": f"{config.longest_span} words"})
    if isinstance(config, CRFConfig):
        scheme = config.new_span_scheme()
        return as_table(
            {
                "labels": str(config.num_labels),
                "sequences": "any" if scheme is None else f"those that are valid in {scheme.kind}",
            }
        )
    if config.estimator is None:
        return "None: this is the baseline."
    if isinstance(config, LatentSelectionConfig):
        bounds = sorted({config.at_least, config.at_least if config.at_most is None else config.at_most})
        share = " of the words of a text" if config.share else ""
        chosen = {"words that are chosen": " to ".join(f"{bound:g}" for bound in bounds) + share}
        if config.neighbour_score:
            chosen["score of neighbours"] = f"{config.neighbour_score:g}"
        seen = "these, read again by the encoder" if config.decoder_input == "encoder" else "the embeddings of these"
        return as_table(_estimator(config) | chosen | {"the classifier sees": seen})
    trees = {
        "trees": f"{'projective' if config.projective else 'non-projective'}, "
        f"{'one root' if config.single_root else 'any number of roots'}",
        "arc scorer": f"{as_text(config.arc_scorer)}, {config.arc_size} units",
        **({"the parser sees": "kinds of tokens"} if isinstance(config.parser_input, list) else {}),
    }
    if task.kind == "parser" or config.relations:
        count = len(config.relations or config.id2label)
        trees["relations"] = f"{count}, by a biaffine scorer of {config.relation_size} units"
    if task.kind == "parser":
        return as_table(trees)
    seen = "the encoder's output" if config.decoder_input == "encoder" else "words without context"
    return as_table(_estimator(config) | trees | {"the decoder sees": seen})


def _estimator(config: Any) -> dict[str, str]:
    """Of a model that makes a latent choice, how it learns it."""
    estimator: Any = get_estimator(config.estimator, **(config.estimator_options or {}))
    options = {key: value for key, value in dataclasses.asdict(estimator).items() if value is not None}
    named = {f"its {as_code(key)}": as_code(str(value)) for key, value in options.items()}
    return {"gradient estimator": as_code(config.estimator), **named}


def _training(about: CardFacts) -> str:
    rows: dict[str, str] = {"data": as_text(about.dataset) if about.dataset else "not named"}
    training = about.training
    if training is not None:
        given = training.to_dict() if isinstance(training, TrainingArguments) else dict(training)
        # -1 and False say that an option was not used.
        rows |= {key: as_text(f"{given[key]}") for key in TRAINING if given.get(key, False) is not False and given[key] != -1}
    return as_table(rows)


def _results(about: CardFacts) -> str:
    results = "No figures were given."
    if about.figures:
        rows = {as_text(key): f"{value:.4f}" for key, value in about.figures.items()}
        results = f"On the {as_text(about.split)} split:\n\n{as_table(rows)}"
    return results if about.reliance is None else f"{results}\n\n{_reliance(about.reliance)}"


def _reliance(found: Reliance) -> str:
    """Whether the tree matters: a sentence, and the score with each kind of trees."""
    metric, worse = as_text(found.metric), round(found.reliance, 4)
    how = f"worse by {worse:.4f}" if worse > 0 else "no worse: it does without its own"
    rows = {f"{metric} with {NAMES_OF_TREES.get(kind, kind)}": f"{score:.4f}" for kind, score in found.scores.items()}
    return f"With random trees in place of its own, the model's {metric} is {how}.\n\n{as_table(rows)}"


def _words(model: PreTrainedModel) -> str:
    longest = model.base_model.longest_text
    if longest is None:
        return "It was tested on single sentences; memory grows with the square of the number of words."
    return f"It takes texts of at most {longest} tokens: pass `truncation=True` to a pipeline to have longer ones cut."
