"""Parts of a model that are trained apart: with learning rates of their own, clipped, and left to rest."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback


def parameter_groups(
    model: nn.Module, learning_rate: float, rates: Mapping[str, float], weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """The groups of an optimizer, with a learning rate for each part of the model.

    >>> groups = parameter_groups(model, 2e-3, {"latent_tree.tree": 1e-3, "latent_tree.encoder": 2e-5}, weight_decay=0.01)
    >>> trainer = Trainer(model, arguments, optimizers=(torch.optim.AdamW(groups), None), …)

    The Trainer makes its schedule of the rates for these as for its own.

    Args:
        learning_rate: of all that is in no part.
        rates: from the names of parts, as `model.named_modules()` and `model.named_parameters()` have them, to their rates.
            Where one part is within another, the inner one's counts.
        weight_decay: of all but biases and the weights of norms, as in the Trainer.

    Raises:
        ValueError: a part that is not in the model.
    """
    for part in rates:
        _parameters_of(model, part)
    decayed = set(Trainer.get_decay_parameter_names(None, model))
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            within = [part for part in rates if _is_in(name, part)]
            rate = rates[max(within, key=len)] if within else learning_rate
            groups.setdefault((rate, name in decayed), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": weight_decay if is_decayed else 0.0}
        for (rate, is_decayed), parameters in groups.items()
    ]


class PartCallback(TrainerCallback):
    """Clips the gradient of a part of the model, or lets the part rest from some time on.

    >>> trainer.add_callback(PartCallback("latent_tree.tree", max_norm=1.0, rests_after=0.4))

    Args:
        part: its name, as `model.named_modules()` has it.
        max_norm: of the part's gradient, whose direction stays. (The Trainer's `max_grad_norm` is for the whole.)
        rests_after: a share of the training, 0 to 1: from then on, the part stays as it is. A parser that has found its
            trees rests, so that the decoder learns from trees that no longer change.

    Raises:
        ValueError: neither is given, or one that makes no sense; when the training begins, a part that is not in the model.
    """

    def __init__(self, part: str, max_norm: float | None = None, rests_after: float | None = None) -> None:
        if max_norm is None and rests_after is None:
            raise ValueError("Give `max_norm`, to clip the part's gradient, or `rests_after`, to let it rest.")
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"`max_norm` must be above 0, got {max_norm!r}.")
        if rests_after is not None and not 0 <= rests_after <= 1:
            raise ValueError(f"`rests_after` must be a share of the training, 0 to 1, got {rests_after!r}.")
        self.part, self.max_norm, self.rests_after = part, max_norm, rests_after

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        _parameters_of(model, self.part)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        parameters = _parameters_of(model, self.part)
        if self.rests_after is not None and state.global_step >= self.rests_after * state.max_steps:
            # Optimizers pass over what has no gradient. (To take away `requires_grad` now would be the end of a distributed
            # training, which waits for every gradient that it has seen before.)
            for parameter in parameters:
                parameter.grad = None
        elif self.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)


def _parameters_of(model: nn.Module, part: str) -> list[nn.Parameter]:
    found = [parameter for name, parameter in model.named_parameters() if _is_in(name, part)]
    if not found:
        children = ", ".join(name for name, _ in model.named_children())
        raise ValueError(
            f"The model has no part {part!r} with parameters in it. Parts are named as in `model.named_modules()`; the "
            f"outermost are: {children}."
        )
    return found


def _is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")
