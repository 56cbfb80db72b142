"""What latent trees look like, while they are learned."""

import statistics
from collections.abc import Sequence

import torch
from transformers import Trainer, TrainerCallback

from hf_latent.trees.parsing import encode, parse_tokens, tree_of, without_adapters
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
        ValueError: a Trainer without a tokenizer, a model without a tree, no texts.
    """

    def __init__(self, trainer: Trainer, texts: Sequence[str], batch_size: int = 32) -> None:
        if trainer.processing_class is None:
            raise ValueError("The Trainer has no tokenizer: pass it `processing_class=tokenizer`.")
        if getattr(trainer.model.config, "estimator", None) is None:
            raise ValueError("The Trainer's model has no latent tree to look at.")
        if isinstance(texts, str) or not any(text.strip() for text in texts):
            raise ValueError(f"`texts` must be a list of sentences, with at least one, got {texts!r}.")
        self.trainer, self.texts, self.batch_size = trainer, list(texts), batch_size
        self.last: list[Tree] = []
        self.step = -1

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:  # another evaluation set, and the same trees
            return
        self.step = state.global_step
        model = without_adapters(self.trainer.accelerator.unwrap_model(self.trainer.model))
        training = model.training
        model.eval()
        trees, entropies = self._look(model)
        model.train(training)
        found = tree_statistics(trees)
        logs = {f"trees/{name}": found[name] for name in ("depth", "flat")}
        logs["trees/entropy"] = statistics.fmean(entropies)
        if self.last:
            logs["trees/agreement"] = attachment_score(trees, self.last)
        self.last = trees
        self.trainer.log(logs)

    @torch.no_grad()
    def _look(self, model) -> tuple[list[Tree], list[float]]:
        trees, entropies = [], []
        for start in range(0, len(self.texts), self.batch_size):
            batch = self.texts[start : start + self.batch_size]
            encoded, word_ids, words = encode(model, self.trainer.processing_class, batch, are_split=False)
            heads, output = parse_tokens(model, encoded, word_ids)
            trees += [tree_of(own, heads[row], output.arcs[row].float().cpu()) for row, own in enumerate(words)]
            entropy = model.base_model.tree.structure.entropy(output.arc_scores, output.num_words)
            entropies += (entropy / output.num_words.clamp(min=1)).tolist()
        return trees, entropies


__all__ = ["TreeStatisticsCallback"]
