"""What latent trees look like, while they are learned."""

import statistics
from collections.abc import Iterator, Sequence

import torch
from transformers import Trainer, TrainerCallback

from hf_latent.models.latent_tree.parsing import Encoded, encode, parse_batch, without_adapters
from hf_latent.trees.statistics import attachment_score, tree_statistics
from hf_latent.trees.tree import Tree


class TreeStatisticsCallback(TrainerCallback):
    """Logs, with each evaluation, what the trees of some sentences look like, to wherever the Trainer reports.

    `trees/depth` and `trees/flat` (see `tree_statistics`), `trees/entropy` (of the distribution over trees, in nats for each
    word) and, from the second evaluation, `trees/agreement` (the share of words with the same head as in the evaluation
    before). Trees that stop changing early, or turn flat, are seen here long before the accuracy tells.

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
        if getattr(trainer.model.config, "estimator", None) is None:
            raise ValueError("The Trainer's model has no latent tree to look at.")
        if isinstance(texts, str) or not any(text.strip() for text in texts):
            raise ValueError(f"`texts` must be a list of sentences, with at least one, got {texts!r}.")
        self.trainer, self.texts, self.batch_size = trainer, list(texts), batch_size
        for _ in self._encoded(without_adapters(trainer.model)):
            pass  # a text that cannot be looked at is told of now, and not in the middle of the training
        self.last: list[Tree] = []
        self.step = -1

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


__all__ = ["TreeStatisticsCallback"]
