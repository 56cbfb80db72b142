"""What latent trees look like, while they are learned, and whether the model relies on them."""

import logging
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import DefaultFlowCallback, Trainer, TrainerCallback
from transformers.trainer_callback import CallbackHandler

from hf_latent.models.latent_tree.parsing import has_trees, parse_batch
from hf_latent.models.words.texts import Encoded, encode, without_adapters
from hf_latent.reliance import KINDS, Reliance, check_kinds, latent_tree_layers, reliance
from hf_latent.trees.statistics import attachment_score, tree_statistics
from hf_latent.trees.tree import Tree

logger = logging.getLogger(__name__)

# From which share of sentences on trees count as collapsed; and below how many nats for each word as certain.
COLLAPSED, CERTAIN = 0.95, 1e-3
COLLAPSES = {
    "flat": "nearly all trees are flat: in each, all words have the same head.",
    "chain": "nearly all trees are chains: in each, every word hangs from its neighbour.",
    "certain": "the choice of trees is certain: each sentence has one tree, and no gradient reaches another.",
}
REMEDIES = (
    "If the decoder can do without the tree, it will: see `RelianceCallback`. To try: a bonus on the entropy in the first part "
    "of the training (`ScheduleCallback(entropy_bonus=linear(0.5, until=0.2))`), a lower learning rate for the scorer "
    '(`parameter_groups`), `decoder_input="embeddings"`, `single_root=True`, several starts (`train_with_restarts`).'
)


class TreeStatisticsCallback(TrainerCallback):
    """Logs, with each evaluation, what the trees of some sentences look like, to wherever the Trainer reports.

    `trees/depth` and `trees/flat` (see `tree_statistics`), `trees/entropy` (of the distribution over trees, in nats for each
    word) and, from the second evaluation, `trees/agreement` (the share of words with the same head as in the evaluation
    before). Trees that stop changing early, or turn flat, are seen here long before the accuracy tells. Of a choice that has
    collapsed (nearly all sentences of three words and more have flat trees, or chains, or nothing is left to choose), the log
    has a warning, with what to try, once in a training.

    >>> trainer.add_callback(TreeStatisticsCallback(trainer, texts))

    Args:
        trainer: the Trainer, whose `processing_class` is the tokenizer.
        texts: sentences to look at, a few hundred.

    Raises:
        ValueError: a Trainer without a tokenizer, a model without a tree, no texts, or one that is too long for the model.
    """

    def __init__(self, trainer: Trainer, texts: Sequence[str], batch_size: int = 32) -> None:
        if trainer.processing_class is None:
            raise ValueError("The Trainer has no tokenizer: pass it `processing_class=tokenizer`.")
        if not has_trees(without_adapters(trainer.model)):
            raise ValueError("The Trainer's model has no latent tree to look at.")
        if isinstance(texts, str) or not any(text.strip() for text in texts):
            raise ValueError(f"`texts` must be a list of sentences, with at least one, got {texts!r}.")
        self.trainer, self.texts, self.batch_size = trainer, list(texts), batch_size
        for _ in self._encoded(without_adapters(trainer.model)):
            pass  # a text that cannot be looked at is told of now, and not in the middle of the training
        self._forget()

    def _forget(self) -> None:
        self.last: list[Tree] = []
        self.step = -1
        self.warned: set[str] = set()

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._forget()

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:  # another evaluation set, and the same trees
            return
        self.step = state.global_step
        model = without_adapters(self.trainer.accelerator.unwrap_model(self.trainer.model))
        trees, entropies = self._look(model)
        found = tree_statistics(trees)
        logs = {f"trees/{name}": found[name] for name in ("depth", "flat")}
        logs["trees/entropy"] = statistics.fmean(entropies)
        if self.last:
            logs["trees/agreement"] = attachment_score(trees, self.last)
        self.last = trees
        self.trainer.log(logs)
        for kind in collapses(trees, logs["trees/entropy"]) - self.warned:
            logger.warning(f"At step {self.step}, {COLLAPSES[kind]} {REMEDIES}")
            self.warned.add(kind)

    def _encoded(self, model) -> Iterator[Encoded]:
        for start in range(0, len(self.texts), self.batch_size):
            yield encode(model, self.trainer.processing_class, self.texts[start : start + self.batch_size], truncation=False)

    @torch.no_grad()
    def _look(self, model) -> tuple[list[Tree], list[float]]:
        trees: list[Tree] = []
        entropies: list[float] = []
        for encoded in self._encoded(model):
            found, output = parse_batch(model, encoded)
            trees += found
            entropy = model.base_model.tree.structure.entropy(output.arc_scores, output.num_words)
            entropies += (entropy / output.num_words.clamp(min=1)).tolist()
        return trees, entropies


def collapses(trees: Sequence[Tree], entropy: float) -> set[str]:
    """In which ways the choice of a tree has come to nothing, by the keys of `COLLAPSES`; `entropy` in nats for each word.

    Shorter sentences than of three words do not count: all their trees are flat or chains.
    """
    found = tree_statistics([tree for tree in trees if len(tree.words) > 2])
    return {kind for kind in ("flat", "chain") if found[kind] >= COLLAPSED} | ({"certain"} if entropy < CERTAIN else set())


class RelianceCallback(TrainerCallback):
    """Logs, when training ends, whether the model relies on its trees: its metric with them, and with others in their place.

    `trees/accuracy_own`, `trees/accuracy_random` and so on for each kind, and `trees/reliance`, by how much its own trees are
    better than random ones (see `hf_latent.diagnostics.reliance`); with another metric, by its name. A `ModelCardCallback` of
    the same Trainer puts them on the card.

    >>> trainer.add_callback(RelianceCallback(trainer))

    The model is evaluated once for each kind of trees (and draw) and once with its own, by the Trainer's own loop. No other
    callback sees these evaluations, and neither they nor the choice of the best model, the random state and the weights of the
    training change by them. Where the measurement fails when training ends, the reason is logged, and the model is not lost.

    Args:
        trainer: the Trainer. Its model is any with a `LatentTreeLayer` in it.
        metric: a name of what `compute_metrics` returns, or "loss"; by default "accuracy" or, where there is none, the loss.
        greater_is_better: by default, as in `TrainingArguments`: unless the name ends in "loss".
        kinds, repeats, seed: as in `reliance`.
        each_evaluation: measure with each evaluation as well; `kinds=["random"]` saves time there.
        eval_dataset: what to evaluate on (or its name), by default the Trainer's. Needed where the Trainer has several.

    Attributes:
        measured: the last [`Reliance`]; None where it was not measured in this training.

    Raises:
        ValueError: a Trainer without data to evaluate on, or with several sets of which none was chosen; a model without a
            latent tree; kinds that are not known, or without "random".
    """

    def __init__(
        self,
        trainer: Trainer,
        metric: str | None = None,
        greater_is_better: bool | None = None,
        kinds: Sequence[str] = KINDS,
        repeats: int = 1,
        seed: int = 0,
        each_evaluation: bool = False,
        eval_dataset: Any = None,
    ) -> None:
        latent_tree_layers(trainer.model)
        check_kinds(kinds)
        if eval_dataset is None and trainer.eval_dataset is None:
            raise ValueError("The Trainer has no data to evaluate on: pass it, or this callback, an `eval_dataset`.")
        if eval_dataset is None and isinstance(trainer.eval_dataset, dict):
            names = ", ".join(map(repr, trainer.eval_dataset))
            raise ValueError(f"The Trainer has several sets to evaluate on: pass `eval_dataset`, one of {names}.")
        self.trainer, self.metric, self.greater_is_better = trainer, metric, greater_is_better
        self._name = "loss" if metric is None else metric.removeprefix("eval_")
        self.options: dict[str, Any] = {"kinds": kinds, "repeats": repeats, "seed": seed}
        self.each_evaluation, self.eval_dataset = each_evaluation, eval_dataset
        self.measured: Reliance | None = None
        self.step = -1  # that the weights are of which were measured last

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.step, self.measured = -1, None

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        if self.each_evaluation:
            self._measure(state.global_step)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        best = state.best_global_step if args.load_best_model_at_end else None
        try:
            self._measure(state.global_step if best is None else best)
        except Exception:
            logger.exception("The reliance on trees could not be measured; the model itself is not affected.")

    def _measure(self, step: int) -> None:
        """Measures and logs, unless the weights of this step were the last to be measured."""
        if self.step == step:
            return
        self.step, self.measured = step, None
        trainer = self.trainer
        with _unseen(trainer):
            found = reliance(trainer.model, self._evaluate, **self.options)
        self.measured = replace(found, metric=self._name, greater_is_better=self._is_greater_better)
        logs = {f"trees/{self._name}_{kind}": score for kind, score in found.scores.items()}
        trainer.log({"trees/reliance": self.measured.reliance, **logs})

    def _evaluate(self) -> float:
        trainer = self.trainer
        output = trainer.evaluation_loop(
            trainer.get_eval_dataloader(self.eval_dataset),
            description="Evaluation",
            prediction_loss_only=True if trainer.compute_metrics is None else None,
        )
        metrics = {name.removeprefix("eval_"): value for name, value in output.metrics.items()}
        if self.metric is None:
            self._name = "accuracy" if "accuracy" in metrics else "loss"
        if self._name not in metrics:
            raise ValueError(f"The evaluation has no metric {self._name!r}. It has: {', '.join(metrics) or 'none'}.")
        return metrics[self._name]

    @property
    def _is_greater_better(self) -> bool:
        return not self._name.endswith("loss") if self.greater_is_better is None else self.greater_is_better


@contextmanager
def _unseen(trainer: Trainer) -> Iterator[None]:
    """Within it, evaluations by the Trainer are seen by no callback (nor progress bar), and leave the weights as they are."""
    seen, optimizer = trainer.callback_handler, trainer.optimizer
    trainer.callback_handler = CallbackHandler([DefaultFlowCallback()], trainer.model, None, None, None)
    trainer.optimizer = None  # an optimizer that averages weights ("schedule-free") would put those in their place
    try:
        yield
    finally:
        trainer.callback_handler, trainer.optimizer = seen, optimizer


__all__ = ["RelianceCallback", "TreeStatisticsCallback"]
