"""Cards written into the folders of models: by hand, or by the Trainer as it goes."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

from hf_latent.callbacks import RelianceCallback
from hf_latent.files import shorten, write_file
from hf_latent.model_cards.card import loaded_from, model_card, task_of
from hf_latent.model_cards.facts import CardFacts
from hf_latent.model_cards.markdown import LONGEST_EXAMPLE, as_text
from hf_latent.models.latent_tree.parsing import has_trees, parse
from hf_latent.models.selection.modeling_selection import LatentSelectionForSequenceClassification
from hf_latent.models.selection.pipeline_word_selection import WordSelectionPipeline
from hf_latent.models.selection.rationale import Rationale
from hf_latent.models.words.texts import without_adapters
from hf_latent.trees import side_by_side

logger = logging.getLogger(__name__)

# What evaluations report that says nothing of the model: the ends of such names.
NOT_QUALITY = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "epoch")


def write_model_card(
    folder: str | os.PathLike,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    example: str | Sequence[str],
    **facts: Any,
) -> Path:
    """Writes `README.md` and, of a model with trees, `tree.svg` into the folder of a saved model; returns the path of the card.

    Names and sentences are shown as they are, whatever markup they may have in them; very long ones are cut. (For a model that
    the Trainer trains and publishes, [`ModelCardCallback`] does it.)

    Args:
        name, example, **facts: the fields of [`CardFacts`].

    Raises:
        TypeError: a fact that [`CardFacts`] does not have.
        ValueError: a model that is not one of ours; an example with more or fewer texts than the model takes.
    """
    model = without_adapters(model)
    task, about = task_of(model), CardFacts(name, example, **facts)
    about = dataclasses.replace(about, base_model=about.base_model or loaded_from(model))
    texts = about.texts
    if len(texts) != task.num_texts:
        raise ValueError(
            "`example` must be one sentence, or two for a model of pairs; for a "
            f"{type(model).__name__}, got {shorten(repr(example))}."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    example, picture = _example(model, tokenizer, texts)
    card = model_card(model, about, example)
    if picture is not None:
        write_file(folder / "tree.svg", picture)
    write_file(folder / "README.md", str(card))
    return folder / "README.md"


def _example(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[str, str | None]:
    """What the model chooses in the texts, in Markdown, and the picture in it, if there is one."""
    if isinstance(model, LatentSelectionForSequenceClassification) and model.config.estimator is not None:
        selector = WordSelectionPipeline(model, tokenizer=tokenizer, device=model.device)
        rationale: Rationale = selector(texts[0])["rationale"]
        return rationale.to_html(), None
    if not has_trees(model):
        return "", None
    pictures = [tree.to_svg() for tree in parse(model, tokenizer, texts)]
    picture = pictures[0] if len(pictures) == 1 else side_by_side([pictures], [""] * len(pictures))
    return f"![{as_text(' '.join(texts), LONGEST_EXAMPLE)}](tree.svg)", picture


class ModelCardCallback(TrainerCallback):
    """Writes the card when training ends, and in place of the Trainer's own when it publishes the model.

    Its figures are those of the last evaluation of the model as it is; with several evaluation sets, of all. Where the Trainer
    has a `RelianceCallback` as well, in whatever order, the card says how much the model relies on its trees.

    >>> trainer.add_callback(ModelCardCallback(trainer, "A fascinating and fun film .", dataset="stanfordnlp/sst2"))
    >>> trainer.train()
    >>> trainer.push_to_hub(license="mit")

    A card that cannot be written does not end a training run: the reason is logged.

    Args:
        trainer: the Trainer, whose `processing_class` is the tokenizer.
        example: a sentence, whose tree is drawn; or, for a model of pairs, two.
        split: the name of the data that the Trainer evaluates on.
        dataset, base_model, language, license, tags, supervised, reliance: as in [`CardFacts`].

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
        measured = [callback.measured for callback in self._reliance_callbacks() if callback.measured is not None]
        options: dict[str, Any] = {"reliance": measured[-1] if measured else None}
        options |= {**self.options, **{name: value for name, value in given.items() if value is not None}}
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

    def _reliance_callbacks(self) -> list[RelianceCallback]:
        return [callback for callback in self.trainer.callback_handler.callbacks if isinstance(callback, RelianceCallback)]

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
        for callback in self._reliance_callbacks():
            callback.on_train_end(args, state, control)  # its own turn may come later, and has nothing left to do then
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
