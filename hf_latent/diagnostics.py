"""Is it the estimator, or my bug? And does the tree matter at all?

An estimator's gradient beside the exact one, on structures small enough to be enumerated. How much a model relies on its trees
(`reliance`), and how far those of several runs agree, are defined elsewhere, and to be had here as well.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_latent.estimators import Estimator, TaskLoss, get_estimator, losses_of
from hf_latent.estimators.expected_loss import every_structure
from hf_latent.reliance import Reliance, reliance, replaced_trees
from hf_latent.structures import Structure
from hf_latent.trees import tree_agreement


class GradientQuality(NamedTuple):
    """How an estimator's gradient of the scores compares with the exact gradient of the expected loss, for each row.

    Attributes:
        mean: `(batch, *event)`, the estimator's gradient, averaged over the repeats.
        exact: `(batch, *event)`, ∇ Σ_z p(z) L(z).
        cosine: `(batch,)`, between the two; 1 is the right direction. It is what counts in training with a small step.
        bias: `(batch,)`, |mean - exact| / |exact|. Surrogate gradients have another scale: compare their cosines.
        noise: `(batch,)`, the standard deviation of the gradient over the repeats, / |exact|.
        standard_error: `(batch,)`, noise / √repeats: about as large as `bias` gets by chance.
    """

    mean: Tensor
    exact: Tensor
    cosine: Tensor
    bias: Tensor
    noise: Tensor
    standard_error: Tensor


def exact_gradient(
    structure: Structure, scores: Tensor, task_loss: TaskLoss, lengths: Tensor | None = None, largest: int = 10_000
) -> Tensor:
    """∇ Σ_z p(z) L(z) with respect to the scores, `(batch, *event)`, by enumeration: one `task_loss` for each structure.

    Raises:
        ValueError: a row has more than `largest` structures.
    """
    leaf = scores.detach().double().requires_grad_()
    with torch.enable_grad():
        expected = torch.zeros((), dtype=torch.float64, device=scores.device)
        for structures, log_probs in every_structure(structure, leaf, lengths, largest):
            expected = expected + (log_probs.exp() * losses_of(task_loss, structures.to(scores.dtype)).double()).sum()
        if not expected.requires_grad:
            return torch.zeros_like(scores)
        return torch.autograd.grad(expected, leaf)[0].to(scores.dtype)


def gradient_quality(
    estimator: Estimator | str,
    structure: Structure,
    scores: Tensor,
    task_loss: TaskLoss,
    lengths: Tensor | None = None,
    repeats: int = 1000,
) -> GradientQuality:
    """The gradient that `estimator` gives to the scores, beside the exact one.

    Args:
        estimator: an estimator, or its name. Its state, if it has one, goes from draw to draw.
        structure, lengths: as estimators take them; at most 10,000 structures a row (trees of 5 to 7 words).
        scores: `(batch, *event)`, such as your network's for a batch of short sentences.
        task_loss: from a value in place of the choice to the loss of each example, `(batch,)`; as estimators take it. Put your
            network in evaluation mode, so that it has no dropout.
        repeats: how often to draw; once is enough for an estimator that draws nothing at random.
    """
    estimator = get_estimator(estimator) if isinstance(estimator, str) else estimator
    exact = exact_gradient(structure, scores, task_loss, lengths).double()
    total, squares = torch.zeros_like(exact), torch.zeros_like(exact)
    state = estimator.initial_state()
    for _ in range(repeats):
        with torch.enable_grad():
            leaf = scores.detach().clone().requires_grad_()
            latent = estimator.resume(structure, leaf, lengths, task_loss, state)
            losses = task_loss(latent.value) if latent.value.requires_grad else torch.zeros_like(latent.loss)
            (gradient,) = torch.autograd.grad((losses + latent.loss).sum(), leaf)
        state = latent.state
        total, squares = total + gradient.double(), squares + gradient.double().square()
    mean = total / repeats
    variance = (squares / repeats - mean.square()).clamp(min=0)
    size = _norm(exact).clamp(min=1e-12)
    noise = variance.flatten(1).sum(1).sqrt() / size
    cosine = (mean * exact).flatten(1).sum(1) / (_norm(mean).clamp(min=1e-12) * size)
    return GradientQuality(mean, exact, cosine, _norm(mean - exact) / size, noise, noise / repeats**0.5)


def _norm(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).norm(dim=1)


def compare_gradients(
    estimators: Mapping[str, Estimator] | Iterable[str],
    structure: Structure,
    scores: Tensor,
    task_loss: TaskLoss,
    lengths: Tensor | None = None,
    repeats: int = 1000,
) -> dict[str, GradientQuality]:
    """`gradient_quality` of several estimators, by name (or as a mapping from labels of your own)."""
    named = estimators if isinstance(estimators, Mapping) else {name: get_estimator(name) for name in estimators}
    return {
        name: gradient_quality(estimator, structure, scores, task_loss, lengths, repeats) for name, estimator in named.items()
    }


def plot_gradients(qualities: Mapping[str, GradientQuality]) -> Any:
    """A figure of Matplotlib: the cosine with the exact gradient, and the noise, of each estimator over the rows.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("`plot_gradients` needs Matplotlib: pip install matplotlib") from None
    names = list(qualities)
    figure = Figure(figsize=(9, 0.35 * len(names) + 1.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    boxes: dict[str, Any] = {
        "positions": range(len(names), 0, -1),
        "orientation": "horizontal",
        "widths": 0.6,
        "manage_ticks": False,
    }
    left.boxplot([qualities[name].cosine.tolist() for name in names], **boxes)
    for value in (0, 1):
        left.axvline(value, color="0.8", zorder=0)
    left.set(xlabel="cosine with the exact gradient (1: right direction)", xlim=(-1.05, 1.05))
    left.set_yticks(boxes["positions"], labels=names)
    right.boxplot([qualities[name].noise.tolist() for name in names], **boxes)
    right.set(xlabel="noise of one draw / size of the exact gradient")
    right.set_xscale("symlog", linthresh=0.1)
    right.set_xlim(left=0)
    return figure


__all__ = [
    "GradientQuality",
    "Reliance",
    "compare_gradients",
    "exact_gradient",
    "gradient_quality",
    "plot_gradients",
    "reliance",
    "replaced_trees",
    "tree_agreement",
]
