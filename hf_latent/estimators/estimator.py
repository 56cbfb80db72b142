"""The contract of an estimator, and the registry that knows each one by its name."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from hf_latent.structures import Structure

TaskLoss = Callable[[Tensor], Tensor]

# Where none is named: the one that is nowhere below a network without a tree, costs least, and needs no labels at hand. See the
# README, "How to choose", for the figures.
DEFAULT_ESTIMATOR = "marginals"


class Latent(NamedTuple):
    """What an estimator hands to the network.

    Attributes:
        value: what the decoder sees, of the shape of the scores: a vertex z, or a point μ of the polytope.
        loss: `(batch,)`, to be added to each example's loss. Its gradient with respect to the scores is the surrogate
            gradient; its value is 0, so that the loss reported stays the downstream loss (`expected_loss` apart).
    """

    value: Tensor
    loss: Tensor


class Estimator(ABC):
    """How the gradient gets through a discrete choice. A frozen dataclass whose fields are its options."""

    name: ClassVar[str] = "unregistered"

    @abstractmethod
    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        """The value and loss to train with.

        Args:
            structure: the set that is chosen from.
            scores: `(batch, *event)`, the network's score for each part; -inf forbids one.
            lengths: `(batch,)`, how much of each row counts.
            task_loss: runs the rest of the network on a value in place of the choice and returns the loss of each
                example, `(batch,)`. It is called with dropout as the forward pass after this call will draw it.
        """

    def evaluate(self, structure: Structure, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the decoder sees at test time, where nothing is estimated: the argmax, or the relaxation's own value."""
        return structure.argmax(scores, lengths)

    def initial_state(self) -> Tensor | None:
        """What is carried over from batch to batch, if anything, for a module to keep as a buffer among its weights."""
        return None

    def resume(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None, task_loss: TaskLoss | None, state: Tensor | None
    ) -> Latent:
        """A call that goes on from this `state`, which is updated in place."""
        return self(structure, scores, lengths, task_loss)


_REGISTRY: dict[str, tuple[type[Estimator], dict[str, Any]]] = {}

EstimatorType = TypeVar("EstimatorType", bound=type[Estimator])


def register_estimator(name: str, **fixed: Any) -> Callable[[EstimatorType], EstimatorType]:
    """Class decorator that makes an estimator known to `get_estimator`, with some of its fields fixed.

    Raises:
        ValueError: the name is taken.
    """

    def register(cls: EstimatorType) -> EstimatorType:
        if name in _REGISTRY:
            raise ValueError(
                f"An estimator named {name!r} is registered already ({_REGISTRY[name][0].__name__}); choose another."
            )
        _REGISTRY[name] = cls, fixed
        return cls

    return register


def list_estimators() -> list[str]:
    """The names that `get_estimator` knows, sorted."""
    return sorted(_REGISTRY)


def get_estimator(name: str, **options: Any) -> Estimator:
    """The estimator registered as `name`, with its options (such as `step_size` and `num_steps`).

    Raises:
        ValueError: an unknown name, or an option with a value that makes no sense.
        TypeError: an option that this estimator does not have.
    """
    if name not in _REGISTRY:
        raise ValueError(f"Unknown estimator {name!r}. The known ones are: {', '.join(list_estimators())}.")
    cls, fixed = _REGISTRY[name]
    known = [field.name for field in dataclasses.fields(cls) if field.init and field.name not in fixed]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise TypeError(f"Estimator {name!r} has no option {option!r}; {takes}.")
    estimator = cls(**fixed, **options)
    object.__setattr__(estimator, "name", name)
    return estimator


def no_loss(scores: Tensor) -> Tensor:
    """The loss of an estimator whose gradient passes through its value."""
    return torch.zeros(scores.shape[0], device=scores.device)


def check_positive(name: str, value: object) -> None:
    """Raises unless `value` is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"`{name}` must be a positive, finite number, got {value!r}.")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises unless `value` is one of the `choices`."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
