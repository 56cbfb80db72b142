"""Does the tree matter at all? A model's score with its own trees beside that with others in their place."""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_latent.inference.checks import at_least_float32, check_count
from hf_latent.layers import LatentTree, LatentTreeLayer
from hf_latent.models.words.texts import evaluation_mode
from hf_latent.structures import DependencyTree
from hf_latent.structures.dependency_tree.conversions import arcs_from_heads

# What a model's own trees can be replaced by; of these, what differs from draw to draw.
KINDS = ("random", "flat", "left_branching", "right_branching", "shuffled")
DRAWN = ("random", "shuffled")
# In place of the -inf of a forbidden arc, where its scores are laid on another sentence: that may need the arc to have a tree.
AVOIDED = -1e4


class Replacement:
    """A hook of `LatentTreeLayer`s, which replaces their trees in evaluation mode; see `replaced_trees`.

    Attributes:
        calls: how often a layer was given other trees.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed, self.calls = kind, seed, 0
        # One for each device: the threads of `nn.DataParallel` would draw from a common one in any order.
        self.generators: dict[torch.device, torch.Generator] = {}

    @torch.no_grad()
    def __call__(
        self, layer: LatentTreeLayer, args: tuple[Any, ...], kwargs: dict[str, Any], own: LatentTree
    ) -> LatentTree | None:
        if layer.training:
            return None
        self.calls += 1
        scores = own.scores.detach().flatten(0, -3)  # of pairs, each sentence by itself
        given = kwargs.get("lengths", args[1] if len(args) > 1 else None)
        n = scores.shape[1]
        lengths = torch.full((len(scores),), n) if given is None else torch.as_tensor(given).flatten()
        generator = self.generators.setdefault(scores.device, torch.Generator().manual_seed(self.seed))
        arcs = _arcs(self.kind, layer, scores, lengths.to(scores.device), generator)
        return own._replace(arcs=arcs.to(own.arcs).view(own.arcs.shape))


def _arcs(kind: str, layer: LatentTreeLayer, scores: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
    """`(rows, n, n + 1)`, from the scores of the same shape, which "shuffled" alone looks at."""
    if kind == "shuffled":
        choose = layer.structure.argmax if layer.argmax_at_evaluation else partial(layer.estimator.evaluate, layer.structure)
        return choose(_shuffled(layer.structure, scores, lengths, generator), lengths)
    if kind == "random":
        zeros = torch.zeros(scores.shape, device=scores.device)
        return layer.structure.sample(zeros, lengths, generator=generator)[0]
    words = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand(scores.shape[:2])
    ends = lengths[:, None]
    heads = {
        "flat": (words > 1).long() if layer.structure.single_root else torch.zeros_like(words),
        "left_branching": torch.where(words == ends, 0, words + 1),
        "right_branching": words - 1,
    }[kind]
    return arcs_from_heads(heads.masked_fill(words > ends, -1))


def _shuffled(structure: DependencyTree, scores: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Each sentence's scores from another sentence, of at least as many words, or from the sentence itself, moved round."""
    scores = scores.to(at_least_float32(scores.dtype)).masked_fill(~structure.mask(scores, lengths), AVOIDED)
    sources, moves = (
        torch.tensor(found, dtype=torch.long, device=scores.device) for found in _sources(lengths.tolist(), generator)
    )
    places = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape[:2])
    moved = torch.where(places < lengths[:, None], (places + moves[:, None]) % lengths[:, None].clamp(min=1), places)
    columns = nn.functional.pad(moved + 1, (1, 0))  # ROOT stays the first
    return scores[sources[:, None, None], moved[:, :, None], columns[:, None, :]]


def _sources(lengths: Sequence[int], generator: torch.Generator) -> tuple[list[int], list[int]]:
    """For each sentence, that whose scores it is given, and by how many words they are moved round."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    groups: dict[int, list[int]] = {}
    for row in sorted(order, key=lambda row: -lengths[row]):
        groups.setdefault(lengths[row], []).append(row)
    sources, moves = list(range(len(lengths))), [0] * len(lengths)
    longer: int | None = None
    for length, rows in groups.items():
        if len(rows) > 1:
            for row, after in zip(rows, [*rows[1:], rows[0]], strict=True):
                sources[row] = after
        elif longer is not None:
            sources[rows[0]] = longer
        elif length > 1:
            moves[rows[0]] = int(torch.randint(1, length, (), generator=generator))
        longer = rows[0]
    return sources, moves


@contextmanager
def replaced_trees(model: nn.Module, kind: str, seed: int = 0) -> Iterator[Replacement]:
    """Within it, the decoder of a model sees other trees than the model's own, wherever that is in evaluation mode.

    Every `LatentTreeLayer` of the model returns other `arcs`, which are valid trees of its structure (whatever arcs a scorer
    forbids). All else stays: its `scores`, and so the `heads` that a model returns and the trees that `parse` shows, whose
    weights are those that the other trees give to them. In training mode, the layer chooses its own.

    >>> with replaced_trees(model, "random"):
    ...     trainer.evaluate()

    Args:
        model: any network with a `LatentTreeLayer` in it, or several. A compiled one runs as it is written, not compiled.
        kind: "flat" (all words hang from ROOT or, where only one may, from the first word), "left_branching" (each word hangs
            from the one after), "right_branching" (each from the one before), "random" (drawn uniformly from all trees), or
            "shuffled": what the layer makes of the scores of another sentence of the batch, one with as many words or, where
            there is none, the next longer one, without its last words. The longest sentence of a batch, if it is the only one
            of its length, gets its own scores, moved round by some words. Shuffled trees are averages where the model's own
            are (`marginals`, `sparsemap`); all others are single trees.
        seed: of what is drawn. The same seed draws the same trees, and the random state of torch stays as it is.

    Yields: the hook, whose `calls` count how often a layer was given other trees.

    Raises:
        TypeError: a model that is no `nn.Module`.
        ValueError: a model without a latent tree, or a kind that is not known.
    """
    layers = latent_tree_layers(model)
    if kind not in KINDS:
        raise ValueError(f"Unknown `kind` {kind!r}. The known ones are: {', '.join(KINDS)}.")
    replacement = Replacement(kind, seed)
    handles = [layer.register_forward_hook(replacement, with_kwargs=True) for layer in layers]
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code does not see hooks that came after it
            yield replacement
    finally:
        for handle in handles:
            handle.remove()


def latent_tree_layers(model: nn.Module) -> list[LatentTreeLayer]:
    """All that the model has, at least one.

    Raises:
        TypeError: a model that is no `nn.Module`.
        ValueError: a model without a latent tree.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {model!r}.")
    layers = [module for module in model.modules() if isinstance(module, LatentTreeLayer)]
    if not layers:
        raise ValueError(f"The `model`, a {type(model).__name__}, has no latent tree (LatentTreeLayer) that could be replaced.")
    return layers


@dataclass(frozen=True)
class Reliance:
    """What `reliance` returns; `print` shows it as a table.

    Attributes:
        own: the score with the model's own trees.
        replaced: the score with other trees, by their kind; of kinds that are drawn, the mean over the repeats.
        metric: what the score is.
        greater_is_better: whether a larger score is a better one; of a loss, it is not.
        spread: of kinds that were drawn more than once, by how much the best draw differs from the worst.
    """

    own: float
    replaced: dict[str, float]
    metric: str = "score"
    greater_is_better: bool = True
    spread: dict[str, float] = field(default_factory=dict)

    @property
    def reliance(self) -> float:
        """By how much the score is better with the model's own trees than with random ones; 0 for a model that ignores them."""
        difference = self.own - self.replaced["random"]
        return difference if self.greater_is_better else -difference

    @property
    def scores(self) -> dict[str, float]:
        """All of them by the kind of the trees, of which "own" is the first."""
        return {"own": self.own, **self.replaced}

    def __str__(self) -> str:
        width = max(len(self.metric), 10)
        lines = [f"{'trees':16} {self.metric:>{width}}" + ("  spread" if self.spread else "")]
        for kind, score in self.scores.items():
            spread = f"  {self.spread[kind]:6.4f}" if kind in self.spread else ""
            lines.append(f"{kind.replace('_', '-'):16} {score:{width}.4f}{spread}")
        how = "own less random" if self.greater_is_better else "random less own"
        lines.append(f"{'reliance':16} {self.reliance:{width}.4f}  ({how})")
        if round(self.reliance, 4) <= 0:
            lines.append("The model does as well with random trees as with its own.")
        return "\n".join(lines)


def reliance(
    model: nn.Module,
    evaluate: Callable[[], float],
    kinds: Sequence[str] = KINDS,
    repeats: int = 3,
    seed: int = 0,
    metric: str = "score",
    greater_is_better: bool = True,
) -> Reliance:
    """How much a model relies on its trees: its score with them, beside that of the same model with others in their place.

    >>> print(reliance(model, lambda: trainer.evaluate()["eval_accuracy"], metric="accuracy"))

    The model is evaluated in evaluation mode. Each evaluation begins in the same random state (of `random`, NumPy and torch);
    afterwards, state and mode are what they were before. (Whoever uses the Trainer may like `RelianceCallback` better, whose
    evaluations nothing else sees.)

    Args:
        model: any network with a `LatentTreeLayer` in it.
        evaluate: returns the score of the model; called once for the model's own trees, for each kind, and for each repeat.
        kinds: of other trees, as in `replaced_trees`; "random" must be among them.
        repeats: how often "random" and "shuffled" are drawn.
        seed: of the first of the draws.
        metric, greater_is_better: what the score is.

    Raises:
        TypeError: a model that is no `nn.Module`; an `evaluate` that cannot be called, or does not return a number.
        ValueError: a model without a latent tree; an `evaluate` that returns NaN or an infinite number, or that does not call
            the latent trees of this model in evaluation mode; kinds that are not known, or without "random".
    """
    latent_tree_layers(model)
    check_count("repeats", repeats)
    check_kinds(kinds)
    if not callable(evaluate):
        raise TypeError(f"`evaluate` must be a function without arguments that returns a score, got {evaluate!r}.")
    with evaluation_mode(model):
        own = _score(evaluate, "its own")
        draws: dict[str, list[float]] = {kind: [] for kind in kinds}
        for kind, scores in draws.items():
            for repeat in range(repeats if kind in DRAWN else 1):
                with replaced_trees(model, kind, seed + repeat) as replacement:
                    scores.append(_score(evaluate, kind))
                if not replacement.calls:
                    raise ValueError(
                        "`evaluate` did not call a latent tree of the `model` in evaluation mode, so that none could be "
                        "replaced. Does it evaluate another model, or a copy?"
                    )
    return Reliance(
        own,
        {kind: statistics.fmean(scores) for kind, scores in draws.items()},
        metric,
        greater_is_better,
        {kind: max(scores) - min(scores) for kind, scores in draws.items() if len(scores) > 1},
    )


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises unless these are kinds of trees, with "random" among them."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if isinstance(kinds, str) or unknown or "random" not in kinds:
        raise ValueError(f"`kinds` must be some of {', '.join(KINDS)}, with random among them, got {kinds!r}.")


def _score(evaluate: Callable[[], Any], kind: str) -> float:
    with _random_state_kept():
        value = evaluate()
    value = value.item() if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1 else value
    if not isinstance(value, Real):
        raise TypeError(f"`evaluate` must return a number, got {value!r} (with {kind} trees).")
    if not math.isfinite(value):
        raise ValueError(f"`evaluate` must return a finite number, got {value!r} (with {kind} trees).")
    return float(value)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """After it, the random state of `random`, NumPy and torch is what it was before: loaders of data draw from it."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices, device_type="cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


__all__ = ["KINDS", "Reliance", "Replacement", "reliance", "replaced_trees"]
