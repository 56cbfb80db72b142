"""The loss of each example: what transformers' own heads compute, before the mean over the batch."""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedConfig

from hf_latent.inference.checks import describe, sees_values

IGNORED = -100


def problem_type(config: PreTrainedConfig, labels: Tensor) -> str:
    """`config.problem_type`; where it is not set, what the labels look like, by transformers' rules."""
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def example_losses(logits: Tensor, labels: Tensor, config: PreTrainedConfig) -> Tensor:
    """`(batch,)` from `logits (batch, num_labels)`: cross-entropy, or the mean over labels of squared error or BCE.

    The labels are class numbers `(batch,)` (-100 is ignored), `(batch,)` or `(batch, num_labels)` values for regression,
    `(batch, num_labels)` 0/1 floats for multi-label classification.

    Raises:
        ValueError: labels that do not fit `config.num_labels` in shape, dtype or range.
    """
    kind, count = problem_type(config, labels), config.num_labels
    logits = logits.float()
    labels = labels.to(logits.device)
    if kind == "single_label_classification":
        _check_classes(labels, logits.shape[0], count)
        return F.cross_entropy(logits, labels.long(), reduction="none", ignore_index=IGNORED)
    if kind == "regression" and labels.shape == logits.shape[:1]:
        labels = labels[:, None]
    if labels.shape != logits.shape:
        raise ValueError(
            f"`labels` must have shape {tuple(logits.shape)} for {kind.replace('_', ' ')} with `num_labels={count}`, got "
            f"{describe(labels)}. Set `num_labels` or `problem_type` to what the data has; class numbers must be integers."
        )
    loss = F.mse_loss if kind == "regression" else F.binary_cross_entropy_with_logits
    return loss(logits, labels.float(), reduction="none").mean(1)


def _check_classes(labels: Tensor, batch: int, count: int) -> None:
    if labels.is_floating_point() or labels.shape != (batch,):
        raise ValueError(
            f"`labels` must be class numbers of shape ({batch},) for single-label classification, got {describe(labels)}. For "
            'several labels an example, set `problem_type="multi_label_classification"` and pass floats.'
        )
    wrong = ((labels < 0) | (labels >= count)) & (labels != IGNORED)
    if sees_values() and wrong.any():
        index = int(wrong.nonzero()[0])
        raise ValueError(
            f"`labels` must lie between 0 and {count - 1} (`num_labels={count}`), but labels[{index}] is {int(labels[index])}. "
            "Build the model with the `num_labels` that the data has."
        )


def mean_loss(losses: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """The mean over the examples that count; over those of all accumulated batches, where the Trainer tells their number.

    The Trainer counts label values (all but -100), of which an example has `labels[0].numel()`.
    """
    if num_items_in_batch is None:
        if labels.dim() == 1 and not labels.is_floating_point():
            return losses.sum() / (labels != IGNORED).sum().clamp(min=1)
        return losses.sum() / max(losses.shape[0], 1)
    per_example = labels.numel() / max(labels.shape[0], 1)
    return losses.sum() * per_example / torch.as_tensor(num_items_in_batch, device=losses.device)
