"""Minimum risk: the expected loss itself, by enumeration. It is for small sets, and is what other estimators are held to."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent.estimators.estimator import Estimator, Latent, TaskLoss, register_estimator
from hf_latent.estimators.task_losses import losses_of, needs_task_loss
from hf_latent.inference.checks import check_count
from hf_latent.structures import Structure


@register_estimator("expected_loss")
@dataclass(frozen=True)
class ExpectedLoss(Estimator):
    """Σ_z p(z) L(z), exactly, for the scores and for the decoder. At evaluation, MAP(s).

    Attributes:
        largest: how many structures a row may have; each costs a pass through the decoder.
    """

    largest: int = 1000

    def __post_init__(self) -> None:
        check_count("largest", self.largest)

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        """See `Estimator`. The value of `Latent.loss` is the expected loss less the loss of MAP(s).

        Raises:
            ValueError: no `task_loss`, or more structures than `largest`.
        """
        task_loss = needs_task_loss(self.name, task_loss)
        scores, lengths = structure.check(scores, lengths)
        value = structure.argmax(scores, lengths)
        expected = torch.zeros(len(scores), device=scores.device)
        for structures, log_probs in every_structure(structure, scores, lengths, self.largest):
            losses = losses_of(task_loss, structures, differentiable=True)
            expected = expected + log_probs.exp() * losses.masked_fill(log_probs.isneginf(), 0.0)
        return Latent(value, expected - losses_of(task_loss, value, differentiable=True))


def every_structure(
    structure: Structure, scores: Tensor, lengths: Tensor | None, largest: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """All structures of all rows, one of each row at a time: `(batch, *event)`, and log p of each, `(batch,)`, with gradient.

    Rows that have fewer than others repeat their last one, with probability 0. All share one log-partition.
    """
    rows = [vertices for _, vertices, _ in structure.enumerate_rows(scores, lengths)]
    counts = torch.tensor([len(row) for row in rows], device=scores.device)
    most = max((len(row) for row in rows), default=0)
    if most > largest:
        raise ValueError(
            f"Estimator 'expected_loss' goes through all structures of a row, of which there are {most}, more than `largest` "
            f"({largest}). Use 'score_function', which samples them, or raise `largest`."
        )
    if not most:
        return
    turns = torch.arange(most, device=scores.device)
    chosen = torch.stack([row[turns.clamp(max=len(row) - 1)] for row in rows], dim=1)
    log_probs = structure.log_prob(chosen, scores, lengths).masked_fill(turns[:, None] >= counts, -torch.inf)
    yield from zip(chosen, log_probs, strict=True)
