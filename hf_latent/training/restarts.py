"""Several short starts, of which the best goes on."""

import math
import os
import shutil
from collections.abc import Callable
from itertools import pairwise

from transformers import Trainer, TrainerCallback, TrainerState, set_seed
from transformers.trainer_utils import SaveStrategy
from transformers.utils import logging

logger = logging.get_logger(__name__)
# Of a start, the last part whose mean loss is compared.
COMPARED = 0.25


def train_with_restarts(make_trainer: Callable[[int], Trainer], starts: int = 4, share: float = 0.2, seed: int = 0) -> Trainer:
    """Begins `starts` trainings, and goes on with the one whose loss is lowest.

    A latent structure that is found early stays, and one that was not found rarely comes later: which it is depends on the
    start, and the training loss tells. Each start is the beginning of a whole training, with its schedules and learning
    rates, and the best goes on where it was: all that the others cost is `share` of a training each.

    >>> def make_trainer(seed):
    ...     set_seed(seed)  # before the model is made, whose weights are drawn
    ...     return Trainer(new_model(), TrainingArguments(output_dir=f"outputs/start-{seed}", seed=seed, …), …)
    >>> trainer = train_with_restarts(make_trainer, starts=4, share=0.2)

    Args:
        make_trainer: from a seed to a Trainer with a new model, ready to be trained, with an `output_dir` of its own.
        starts: how many; their seeds are `seed`, `seed + 1`, ….
        share: of a training, after which the starts are compared, by the mean training loss over the last quarter of it.

    Returns: the Trainer whose training has been finished.

    Raises:
        ValueError: `starts` below 1; `share` that is not above 0 and below 1; no start has a finite loss.
    """
    if not isinstance(starts, int) or starts < 1:
        raise ValueError(f"`starts` must be an integer, 1 or more, got {starts!r}.")
    if not 0 < share < 1:
        raise ValueError(f"`share` must be above 0 and below 1, got {share!r}.")
    if starts == 1:
        trainer = make_trainer(seed)
        trainer.train()
        return trainer
    best: tuple[float, Trainer, str] | None = None
    for own_seed in range(seed, seed + starts):
        trainer = make_trainer(own_seed)
        if trainer.args.save_only_model:
            raise ValueError("`save_only_model=True` keeps too little to go on from: leave it out of the training arguments.")
        pause = _Pause(share)
        trainer.add_callback(pause)
        trainer.train()
        trainer.remove_callback(pause)
        loss = pause.mean_loss(trainer.state)
        logger.info(f"Start {own_seed}: loss {loss:.4f} after {trainer.state.global_step} steps.")
        checkpoint = os.path.join(trainer.args.output_dir, f"checkpoint-{trainer.state.global_step}")
        if math.isfinite(loss) and (best is None or loss < best[0]):
            worse, best = best, (loss, trainer, checkpoint)
        else:
            worse = loss, trainer, checkpoint
        if worse is not None:
            _remove(worse[1], worse[2])
    if best is None:
        raise ValueError(f"None of the {starts} starts has a finite loss. Lower the learning rate, or look at the data.")
    _, trainer, checkpoint = best
    set_seed(trainer.args.seed)  # as the Trainer did when it was made: the order of examples is drawn again, and is the same
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.args.save_strategy == SaveStrategy.NO:
        _remove(trainer, checkpoint)
    return trainer


class _Pause(TrainerCallback):
    """Stops a training after a share of it, with a checkpoint to go on from."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.compared_from = 0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        last = max(1, round(self.share * state.max_steps))
        self.compared_from = int((1 - COMPARED) * last)
        if state.global_step == self.compared_from:
            control.should_log = True
        elif state.global_step == last:
            control.should_log = control.should_save = control.should_training_stop = True

    def mean_loss(self, state: TrainerState) -> float:
        """Over the steps that are compared."""
        entries = [(0, 0.0)] + [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
        steps = [(step - before, loss) for (before, _), (step, loss) in pairwise(entries) if step > self.compared_from]
        return sum(count * loss for count, loss in steps) / max(1, sum(count for count, _ in steps))


def _remove(trainer: Trainer, checkpoint: str) -> None:
    if trainer.is_world_process_zero():
        shutil.rmtree(checkpoint, ignore_errors=True)
