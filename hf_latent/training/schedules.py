"""What changes in the course of a training: temperatures, step sizes, the bonus on the entropy of the choice."""

import math
from collections.abc import Callable
from typing import TypeVar

from torch import nn
from transformers import TrainerCallback

from hf_latent.layers import Counters, LatentLayer
from hf_latent.models.latent_tree.modeling_latent_tree import LatentTreeModel

# From the share of the training that is done, 0 to 1, to a value.
Schedule = Callable[[float], float]
Found = TypeVar("Found", bound=nn.Module)


def linear(start: float, end: float = 0.0, until: float = 1.0) -> Schedule:
    """From `start` to `end` in a straight line, over the first `until` of the training; `end` from then on.

    Raises:
        ValueError: `until` that is not above 0 and at most 1; a value that is not finite.
    """
    if not 0 < until <= 1:
        raise ValueError(f"`until` must be a share of the training, above 0 and at most 1, got {until!r}.")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"`start` and `end` must be finite, got {start!r} and {end!r}.")
    return lambda done: start + (end - start) * min(1.0, done / until)


class ScheduleCallback(TrainerCallback):
    """Sets options of the model's latent choices, step by step.

    >>> trainer.add_callback(ScheduleCallback(entropy_bonus=linear(0.5, until=1 / 6), temperature=linear(2.0, 0.5)))

    Each schedule is a function from the share of the training that is done (0 to 1) to a value: `linear`, or your own. An
    interrupted training goes on where it was. The last values stay, and are written into the configuration of a latent-tree
    model, so that it is saved with the temperature that it was trained to; with `load_best_model_at_end`, they are those of
    the best step.

    Args:
        **schedules: `entropy_bonus` (see `LatentLayer`), `counter_temperature` (see `Counters`), and any option of the
            estimator: `temperature`, `step_size`, ….

    Raises:
        ValueError: no schedules. When the training begins: a model without a latent choice, or a value that the estimator
            does not take.
        TypeError: a schedule that cannot be called. When the training begins: an option that the estimator does not have.
    """

    def __init__(self, **schedules: Schedule) -> None:
        if not schedules:
            raise ValueError("Give at least one schedule, such as `entropy_bonus=linear(0.5, until=0.2)`.")
        for name, schedule in schedules.items():
            if not callable(schedule):
                raise TypeError(
                    f"`{name}` must be a function from the share of the training that is done to a value, such as "
                    f"linear(1.0, 0.1), got {schedule!r}."
                )
        self.schedules = schedules

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        self._set(model, state.global_step, state.max_steps)

    def on_step_begin(self, args, state, control, model=None, **kwargs) -> None:
        self._set(model, state.global_step, state.max_steps)

    def on_train_end(self, args, state, control, model=None, **kwargs) -> None:
        is_best = args.load_best_model_at_end and state.best_global_step
        self._set(model, state.best_global_step if is_best else state.global_step, state.max_steps)

    def _set(self, model: nn.Module, step: int, steps: int) -> None:
        layers = modules_of(model, LatentLayer, "latent choice: no `LatentLayer` or `LatentTreeLayer`")
        for name, schedule in self.schedules.items():
            value = schedule(step / max(steps, 1))
            if name == "entropy_bonus":
                for layer in layers:
                    layer.entropy_bonus = value
            elif name == "counter_temperature":
                for counters in modules_of(model, Counters, "counters: no `Counters`"):
                    counters.temperature = value
            else:
                for layer in layers:
                    layer.estimator = layer.estimator.with_options(**{name: value})
                for config in (module.config for module in model.modules() if isinstance(module, LatentTreeModel)):
                    config.estimator_options = {**(config.estimator_options or {}), name: value}


def modules_of(model: nn.Module, kind: type[Found], what: str) -> list[Found]:
    """All modules of a kind within a model.

    Raises:
        ValueError: there is none.
    """
    found = [module for module in model.modules() if isinstance(module, kind)]
    if not found:
        raise ValueError(f"The model ({type(model).__name__}) has no {what} is in it.")
    return found


__all__ = ["Schedule", "ScheduleCallback", "linear"]
