"""What a parser is trained with, for the stock Trainer: learning rates of its parts, and metrics."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from transformers import EvalPrediction

from hf_latent.training.parts import parameter_groups
from hf_latent.trees import parsing_scores


def encoder_parameter_groups(
    model: nn.Module, learning_rate: float, encoder_learning_rate: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """The groups of an optimizer, with one learning rate for the pretrained encoder and another for all that is new.

    >>> groups = encoder_parameter_groups(model, learning_rate=1e-3, encoder_learning_rate=5e-5)
    >>> Trainer(model, arguments, optimizer_cls_and_kwargs=(torch.optim.AdamW, {"params": groups}), …)

    or `optimizers=(torch.optim.AdamW(groups), None)`. The Trainer's schedule (its warm-up, too) scales both rates.

    Args:
        model: one of our models, or what PEFT or others have wrapped around it.
        weight_decay: as in `parameter_groups`.

    Raises:
        ValueError: a model without an encoder of ours.
    """
    encoders = [name for name, _ in model.named_modules() if name.split(".")[-1] == "encoder"]
    if not encoders:
        raise ValueError(f"`model` must be a latent-tree model, which has an encoder, got a {type(model).__name__}.")
    # An encoder may have an "encoder" in it: the outermost is meant.
    return parameter_groups(model, learning_rate, {min(encoders, key=len): encoder_learning_rate}, weight_decay)


def parsing_metrics(
    id2label: Mapping[int, str], punctuation: bool = True, subtypes: bool = False
) -> Callable[[EvalPrediction], dict[str, float]]:
    """What the Trainer takes as `compute_metrics` for a parser: "uas", "las" and "clas" of `hf_latent.trees.parsing_scores`.

    >>> Trainer(model, arguments, compute_metrics=parsing_metrics(model.config.id2label), …)

    It takes predictions and labels as the Trainer has them: of heads and relations, padded with -100. Words whose gold head is
    not known do not count, and words whose gold relation is not known count for "uas" alone.

    Args:
        id2label: the names of the relations, `model.config.id2label`.
        punctuation, subtypes: as in `parsing_scores`.
    """

    def compute(found: EvalPrediction) -> dict[str, float]:
        (heads, relations), (gold_heads, gold_relations) = found.predictions, found.label_ids
        named = [[id2label.get(number, "_") for number in row] for row in relations.tolist()]
        gold = [[id2label.get(number) for number in row] for row in gold_relations.tolist()]
        return parsing_scores(heads.tolist(), gold_heads.tolist(), named, gold, punctuation, subtypes)

    return compute
