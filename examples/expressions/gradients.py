"""Each estimator's gradient beside the exact one, on expressions whose trees can be enumerated, in the course of a training."""

from typing import Any

import torch
from tasks import Task
from train import KINDS, collate, new_trainer, row_of
from transformers import TrainerCallback

from hf_latent import get_estimator
from hf_latent.diagnostics import compare_gradients

# Operators and digits of an expression at most: five words have 1296 trees, 625 of them with a single root.
WORDS, EXPRESSIONS, REPEATS = 5, 64, 100


class Compare(TrainerCallback):
    """Compares before some steps of a training.

    Attributes:
        found: for each step, the cosine of each estimator's gradient (its mean over many draws) with the exact one, as a mean
            over expressions.
    """

    def __init__(self, task: Task, kind: str, estimators: dict[str, dict[str, Any]], steps: list[int]) -> None:
        expressions = [one for one in task.generate(2000, 12, seed=100) if len(one.words) == WORDS][:EXPRESSIONS]
        self.inputs = collate(task, [row_of(task, one) for one in expressions])
        self.structure = KINDS[kind]
        self.estimators = {name: get_estimator(name, **options) for name, options in estimators.items()}
        self.steps = steps
        self.found: dict[int, dict[str, float]] = {}

    def on_step_begin(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step in self.steps:
            with torch.random.fork_rng():
                self.found[state.global_step] = self._compared(model)

    def _compared(self, model: torch.nn.Module) -> dict[str, float]:
        model.eval()
        with torch.no_grad():
            scores, lengths, loss_of = model.scores_and_loss(self.inputs["input_ids"], self.inputs["labels"])
        qualities = compare_gradients(self.estimators, self.structure, scores, loss_of, lengths, REPEATS)
        model.train()
        return {name: float(quality.cosine.mean()) for name, quality in qualities.items()}


def gradients(task: Task, /, **run: Any) -> dict[str, Any]:
    """The cosines at the steps of `run["looks"]`, while the estimator `run["row"]` trains the network."""
    compare = Compare(task, run["kind"], run["estimators"], run["looks"])
    trainer = new_trainer(task, run)
    trainer.add_callback(compare)
    trainer.add_callback(_Stop(max(run["looks"])))
    trainer.train()
    return {"cosines": compare.found}


class _Stop(TrainerCallback):
    """Ends a training behind a step: the schedules are those of the whole."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_training_stop = state.global_step > self.step
